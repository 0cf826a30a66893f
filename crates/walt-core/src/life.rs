//! The life of a node between power-on and the next: what its state is, decided from events.
//!
//! ```text
//!            started                    booted (new boot id)
//!   Off ───────────────▶ Booting ───────────────────────────▶ Booted
//!    ▲                     │  ▲                                  │ link lost for longer than
//!    │ stopped             │  │ started                          │ [`LINK_GRACE_S`]
//!    └──────── any         ▼  └──────────────── any              ▼
//!                        Down ◀───────────────────────────────  Down
//!                 no report in time                      link back: Booted
//! ```
//! A machine of its own starts a boot by asking for its first file.
//!
//! A node that copies its image to its disk reports how far it is: it is not overdue while it goes on.
//!
//! Times are seconds since the epoch, passed in by the caller.

/// Seconds a booted node's link may be lost (the server's restart, a cut cable) before it shows as down.
/// Two heartbeats are missed, and one reconnection at the longest back-off fits.
pub const LINK_GRACE_S: f64 = 40.0;

/// Where a node has its root file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootMode {
    /// The image on the server, and changes in RAM.
    Network,
    /// A copy of the image on its disk; changes there are dropped at each boot.
    HybridVolatile,
    /// A copy of the image on its disk, and changes there are kept.
    HybridPersistent,
}

impl BootMode {
    /// Its name, in the node link, the setting `boot.mode` and `walt_boot_mode` on the node.
    pub fn name(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::HybridVolatile => "hybrid-volatile",
            Self::HybridPersistent => "hybrid-persistent",
        }
    }

    /// The mode of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Network, Self::HybridVolatile, Self::HybridPersistent].into_iter().find(|m| m.name() == name)
    }

    /// Whether the node does without its image on the server.
    pub fn is_hybrid(self) -> bool {
        self != Self::Network
    }
}

/// State of one node. Kept in the database as it is, so that a new server knows what the old one knew.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Life {
    /// When the present boot was started.
    pub started: Option<f64>,
    /// Kernel boot id of the boot that is over: reports of it no longer count.
    pub old_boot_id: Option<String>,
    /// Kernel boot id of the present boot, once its link has sent HELLO.
    pub boot_id: Option<String>,
    /// When the present boot was reported as complete.
    pub booted: Option<f64>,
    /// When its link was lost, if it is.
    pub link_lost: Option<f64>,
    /// The mode of the present boot, once it has reported it.
    pub mode: Option<BootMode>,
    /// When it last reported that it copies its image.
    pub copied_at: Option<f64>,
    /// How much of its image it has copied, in percent, while it copies.
    pub copied: Option<u8>,
}

/// What a moment shows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Phase {
    /// Nothing runs.
    Off,
    /// Started this many seconds ago.
    Booting(f64),
    /// Reported; the boot took this many seconds.
    Booted(f64),
    /// Overdue, or out of reach.
    Down,
}

impl Life {
    /// A boot starts (power-on, or a reboot was ordered): the present boot id is over.
    pub fn start(&mut self, now: f64) {
        let old = self.boot_id.take().or_else(|| self.old_boot_id.take());
        *self = Self { started: Some(now), old_boot_id: old, ..Self::default() };
    }

    /// The machine was switched off and nothing is to start.
    pub fn stop(&mut self) {
        *self = Self { old_boot_id: self.boot_id.take(), ..Self::default() };
    }

    /// The machine asks for the first file of a boot; true if that shows a boot which this server did not start:
    /// nothing ran, or what ran has let go of its link.
    pub fn loads(&mut self, now: f64) -> bool {
        let is_new = self.started.is_none() || self.booted.is_some() && self.link_lost.is_some();
        if is_new {
            self.start(now);
        }
        is_new
    }

    /// The node's link says hello with its kernel's boot id; false if that boot is over.
    pub fn hello(&mut self, boot_id: &str, now: f64) -> bool {
        if self.old_boot_id.as_deref() == Some(boot_id) {
            return false;
        }
        if self.boot_id.as_deref() != Some(boot_id) {
            // A boot nobody here started: a machine of its own, or a reboot from inside.
            if self.boot_id.is_some() || self.started.is_none() {
                self.start(now);
            }
            self.boot_id = Some(boot_id.to_owned());
        }
        self.link_lost = None;
        self.copied = None;
        true
    }

    /// The node reports that it copies its image, and how far it is; false if that boot is over.
    pub fn copies(&mut self, boot_id: &str, mode: BootMode, percent: u8, now: f64) -> bool {
        let is_over = self.old_boot_id.as_deref() == Some(boot_id);
        // Before its link exists; a node that has booted copies nothing.
        if is_over || self.booted.is_some() && self.boot_id.as_deref() == Some(boot_id) {
            return false;
        }
        if self.boot_id.as_deref().is_some_and(|known| known != boot_id) || self.started.is_none() {
            self.start(now);
        }
        (self.mode, self.copied_at, self.copied) = (Some(mode), Some(now), Some(percent.min(100)));
        true
    }

    /// The node reports the end of its boot; true if it is news.
    pub fn report_booted(&mut self, boot_id: &str, now: f64) -> bool {
        if self.boot_id.as_deref() != Some(boot_id) || self.booted.is_some() {
            return false;
        }
        self.booted = Some(now);
        true
    }

    /// The link of this boot is lost.
    pub fn lost(&mut self, boot_id: &str, now: f64) {
        if self.boot_id.as_deref() == Some(boot_id) {
            self.link_lost = Some(now);
        }
    }

    /// What the state is at this moment; `timeout` is the setting `boot.timeout` in seconds.
    pub fn phase(&self, now: f64, timeout: Option<f64>) -> Phase {
        let Some(started) = self.started else { return Phase::Off };
        if let Some(booted) = self.booted {
            return match self.link_lost {
                Some(lost) if now - lost > LINK_GRACE_S => Phase::Down,
                _ => Phase::Booted(booted - started),
            };
        }
        let progress = self.copied_at.map_or(started, |at| at.max(started));
        if timeout.is_some_and(|t| now - progress > t) { Phase::Down } else { Phase::Booting(now - started) }
    }
}

impl Phase {
    /// What `walt node show` writes in its column `booted`.
    pub fn text(self) -> String {
        match self {
            Self::Off => "off".into(),
            Self::Booting(seconds) => format!("booting {}s", seconds.max(0.0) as u64),
            Self::Booted(_) => "yes".into(),
            Self::Down => "NO".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Option<f64> = Some(180.0);

    #[test]
    fn a_boot_and_a_reboot() {
        let mut life = Life::default();
        assert_eq!(life.phase(0.0, T), Phase::Off);
        life.start(10.0);
        assert_eq!(life.phase(22.5, T).text(), "booting 12s");
        assert!(life.hello("a", 20.0));
        assert!(life.report_booted("a", 25.0));
        assert!(!life.report_booted("a", 26.0));
        assert_eq!(life.phase(30.0, T), Phase::Booted(15.0));
        life.start(40.0);
        assert!(!life.hello("a", 41.0), "the old boot's link still speaks");
        assert!(!life.report_booted("a", 41.0));
        assert_eq!(life.phase(41.0, T), Phase::Booting(1.0));
        assert!(life.hello("b", 50.0));
        assert!(life.report_booted("b", 51.0));
        assert_eq!(life.phase(51.0, T), Phase::Booted(11.0));
        assert_eq!(life.phase(40.0 + 500.0, T), Phase::Booted(11.0));
    }

    #[test]
    fn lost_links_and_late_boots() {
        let mut life = Life::default();
        life.start(0.0);
        assert_eq!(life.phase(181.0, T), Phase::Down);
        assert_eq!(life.phase(181.0, None), Phase::Booting(181.0));
        assert!(life.hello("a", 5.0) && life.report_booted("a", 6.0));
        life.lost("zzz", 7.0);
        assert_eq!(life.link_lost, None);
        life.lost("a", 7.0);
        assert_eq!(life.phase(8.0, T), Phase::Booted(6.0));
        assert_eq!(life.phase(7.0 + LINK_GRACE_S + 1.0, T), Phase::Down);
        assert!(life.hello("a", 100.0));
        assert_eq!(life.phase(100.0, T), Phase::Booted(6.0));
        // It rebooted by itself.
        assert!(life.hello("b", 200.0));
        assert_eq!(life.phase(203.0, T), Phase::Booting(3.0));
    }

    #[test]
    fn a_machine_that_starts_by_itself() {
        let mut life = Life::default();
        assert!(life.loads(10.0));
        assert!(!life.loads(11.0), "the next file of the same boot");
        assert!(life.hello("a", 20.0) && life.report_booted("a", 25.0));
        assert_eq!(life.phase(25.0, T), Phase::Booted(15.0));
        assert!(!life.loads(26.0), "somebody on the running node looks at a boot file");
        life.lost("a", 30.0);
        assert!(life.loads(40.0));
        assert_eq!(life.phase(42.0, T), Phase::Booting(2.0));
        assert!(!life.hello("a", 43.0) && life.hello("b", 50.0));
    }

    #[test]
    fn a_node_that_is_stopped_is_off_and_its_boot_over() {
        let mut life = Life::default();
        life.start(0.0);
        assert!(life.hello("a", 5.0) && life.report_booted("a", 6.0));
        life.stop();
        assert_eq!(life.phase(7.0, T), Phase::Off);
        assert!(!life.hello("a", 8.0), "the link of the stopped boot still speaks");
        life.start(10.0);
        assert!(!life.hello("a", 11.0), "and speaks when the next boot has started");
        assert!(life.hello("b", 12.0));
    }

    #[test]
    fn phases_change_behind_their_limits() {
        let mut life = Life::default();
        life.start(100.0);
        // T is 180 s: at the limit the node still has its chance.
        assert_eq!(life.phase(280.0, T), Phase::Booting(180.0));
        assert_eq!(life.phase(280.5, T), Phase::Down);
        assert!(life.hello("a", 110.0) && life.report_booted("a", 120.0));
        life.lost("a", 130.0);
        assert_eq!(life.phase(130.0 + LINK_GRACE_S, T), Phase::Booted(20.0));
        assert_eq!(life.phase(130.5 + LINK_GRACE_S, T), Phase::Down);
    }

    #[test]
    fn a_copy_that_goes_on_is_not_overdue() {
        let mut life = Life::default();
        life.start(0.0);
        assert!(life.hello("old", 1.0) && life.report_booted("old", 2.0));
        life.start(10.0);
        let volatile = BootMode::HybridVolatile;
        assert!(!life.copies("old", volatile, 1, 11.0) && life.copied.is_none() && life.mode.is_none());
        assert!(life.copies("new", volatile, 40, 100.0));
        assert_eq!((life.mode, life.copied, life.started), (Some(volatile), Some(40), Some(10.0)));
        assert_eq!(life.phase(280.0, T), Phase::Booting(270.0));
        assert_eq!(life.phase(280.5, T), Phase::Down);
        assert!(life.copies("new", volatile, 200, 300.0));
        assert_eq!((life.copied, life.phase(301.0, T)), (Some(100), Phase::Booting(291.0)));
        assert!(life.hello("new", 310.0) && life.copied.is_none());
        assert!(life.copies("new", volatile, 99, 311.0), "a report that comes late");
        assert!(life.report_booted("new", 320.0));
        assert!(!life.copies("new", volatile, 99, 321.0));
        // A boot that nobody here started.
        assert!(life.copies("third", BootMode::HybridPersistent, 0, 400.0));
        assert_eq!((life.phase(401.0, T), life.old_boot_id.as_deref()), (Phase::Booting(1.0), Some("new")));
        let mut life = Life::default();
        assert!(life.copies("first", volatile, 0, 5.0));
        assert_eq!(life.phase(7.0, T), Phase::Booting(2.0));
    }

    #[test]
    fn modes_have_their_names() {
        for mode in [BootMode::Network, BootMode::HybridVolatile, BootMode::HybridPersistent] {
            assert_eq!(BootMode::from_name(mode.name()), Some(mode));
            assert_eq!(mode.is_hybrid(), mode.name().starts_with("hybrid-"));
        }
        assert_eq!(BootMode::from_name("auto"), None);
    }

    #[test]
    fn texts() {
        let shown = [Phase::Off, Phase::Booting(12.9), Phase::Booting(-1.0), Phase::Booted(3.0), Phase::Down]
            .map(Phase::text);
        assert_eq!(shown, ["off", "booting 12s", "booting 0s", "yes", "NO"]);
    }

    #[test]
    fn reordering_a_reboot_keeps_the_old_boot_out() {
        let mut life = Life::default();
        life.start(0.0);
        life.hello("a", 1.0);
        life.start(2.0);
        life.start(3.0);
        assert!(!life.hello("a", 4.0));
    }
}
