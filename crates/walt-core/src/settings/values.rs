//! Values that completion proposes for a setting.

use super::{
    BOOT_DELAY, BOOT_MODE, BOOT_RETRIES, BOOT_SECURE, DISKS, EXPOSE, KEXEC_ALLOW, NETSETUP, NETWORKS, Setting,
};

impl Setting {
    /// Some of its values: all of them if there are few, else usual ones.
    pub fn values(&self) -> &'static [&'static str] {
        match self.key {
            BOOT_DELAY => &["0", "random"],
            BOOT_MODE => &["auto", "network", "hybrid-volatile", "hybrid-persistent"],
            BOOT_RETRIES => &["0", "3", "9"],
            "boot.road" => &["direct", "pxe"],
            BOOT_SECURE | KEXEC_ALLOW | "mount.persist" => &["false", "true"],
            "boot.timeout" => &["none", "180", "600"],
            "cpu.cores" => &["1", "2", "4"],
            DISKS => &[
                "none",
                "8G",
                "8G[template=ext4]",
                "8G[template=fat32]",
                "8G[template=hybrid-boot-v]",
                "8G[template=hybrid-boot-p]",
            ],
            EXPOSE => &["none", "80:8080", "22:2222"],
            NETSETUP => &["LAN", "NAT"],
            NETWORKS => &["walt-net", "walt-net,lab", "walt-net,lab[lat=10ms,bw=100Mbps]"],
            "ram" => &["256M", "512M", "1G", "2G", "4G"],
            _ => &[],
        }
    }
}
