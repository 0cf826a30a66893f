//! Services, and users of a directory service, in a shell with the OS started.

use super::USER;
use super::users::top_layer;
use std::os::unix::fs::MetadataExt;
use walt_testkit::TestServer;

/// A user as a directory service has it.
const FAR: u32 = 1_023_415_920;

/// What units of Debian's packages ask for and a container has not. Each line is the properties of one service.
const ASKED: &str = "
User=nobody PrivateUsers=yes
PrivateUsers=yes
DynamicUser=yes StateDirectory=walt-test
BindReadOnlyPaths=/dev/null:/srv/null
TemporaryFileSystem=/srv
LogNamespace=walt-test
CPUSchedulingPolicy=fifo CPUSchedulingPriority=1
IOSchedulingClass=realtime
Nice=-5 OOMScoreAdjust=-900 LimitNOFILE=1000000000 LimitMEMLOCK=infinity
User=nobody PrivateTmp=yes PrivateDevices=yes PrivateNetwork=yes ProtectSystem=strict ProtectHome=yes ProtectHostname=yes
User=nobody ProtectKernelTunables=yes ProtectProc=invisible ProcSubset=pid RestrictNamespaces=yes SystemCallFilter=@system-service
User=nobody AmbientCapabilities=CAP_SYS_TIME KeyringMode=private DevicePolicy=closed IPAddressDeny=any
";

/// Services start whatever their units ask for, users above 65535 have what is theirs, and an image gets of both what
/// belongs to it. `image` is one whose OS is systemd.
pub fn start_and_far_users_own_their_files(server: &TestServer, image: &str) {
    let mut script = String::from("apart() { systemd-run -q --wait \"$@\" true || echo \"failed: $*\"; }\n");
    for line in ASKED.trim().lines() {
        let properties: Vec<String> = line.split(' ').map(|p| format!("-p {p}")).collect();
        script += &format!("apart {}\n", properties.join(" "));
    }
    script += &format!(
        "groupadd -g {FAR} far && useradd --no-log-init -m -u {FAR} -g far far && su far -c 'echo mine >~/own && chmod 4755 ~/own' || echo no user\n\
         ls -ln /home/far/own /home/far/.bashrc | tr -s ' ' | cut -d ' ' -f 1,3,4,9\n"
    );
    let ran = server.walt_with_input(USER, &["image", "shell", image, "--save=services"], &script);
    let of = |mode: &str, name: &str| format!("{mode} {FAR} {FAR} /home/far/{name}\n");
    let said = ran.ok();
    let wanted = format!("{}{}", of("-rw-r--r--", ".bashrc"), of("-rwsr-xr-x", "own"));
    assert!(said.starts_with(&wanted), "{said}");
    let layer = top_layer(server, "services").1;
    let bashrc = layer.join("home/far/.bashrc").metadata().unwrap();
    assert_eq!((bashrc.uid(), bashrc.gid()), (FAR, FAR));
    assert!(bashrc.len() > 0);
    assert!(!layer.join("run/systemd").exists());
}
