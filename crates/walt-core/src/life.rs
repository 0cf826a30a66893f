//! The life of a node between power-on and the next: what its state is, decided from events.
//!
//! ```text
//!            started                    booted (new boot id)
//!   Off ───────────────▶ Booting ───────────────────────────▶ Booted
//!    ▲                     │  ▲                                  │ link lost for longer than
//!    │ stopped             │  │ started                          │ [`LINK_GRACE_S`]
//!    └──────── any         ▼  └──────────────── any              ▼
//!                        Down ◀───────────────────────────────  Down
//!            no report in time, last try failed          link back: Booted
//! ```
//! A machine of its own starts a boot by asking for an address or for its first file.
//!
//! A node that copies its image to its disk reports how far it is: it is not overdue while it goes on.
//!
//! A boot that fails is tried again `boot.retries` times ([`Life::failed`]); after that, the node *needs a look*: nothing
//! more is tried until a user reboots it, or it boots after all.
//!
//! The clock of a boot that is under way when the server starts begins anew then ([`Life::resume`]): a node cannot load
//! anything while the server is down. The time that the boot has taken still counts from its start.
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
    /// The clock of the setting `boot.timeout` runs from here, if this is later than the start.
    pub clock_from: Option<f64>,
    /// How often a failed boot was tried again since the node last booted, or was rebooted by a user.
    pub tries: u32,
    /// Why nothing more is tried.
    pub needs_look: Option<String>,
}

/// What follows a failed boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The next try; after it, this many are left.
    Retry {
        /// How many.
        left: u32,
    },
    /// Nothing: the node needs a look.
    Look,
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
        *self = Self { started: Some(now), old_boot_id: old, tries: self.tries, ..Self::default() };
    }

    /// Whether a boot has begun, and nobody knows yet how it ends.
    pub fn is_under_way(&self) -> bool {
        self.started.is_some() && self.booted.is_none() && self.needs_look.is_none()
    }

    /// A user wants another boot: all retries are there again, and the clock runs from now.
    pub fn restore(&mut self, now: f64) {
        (self.tries, self.needs_look) = (0, None);
        self.clock_from = self.started.map(|_| now);
    }

    /// The server has started. Nobody could load anything, or have a link, while it was down.
    pub fn resume(&mut self, now: f64) {
        if self.started.is_some() {
            self.clock_from = Some(now);
        }
        if self.booted.is_some() {
            self.link_lost = Some(now);
        }
    }

    /// The present boot has failed, and `what` says how. `power` is whether the server can switch the machine off and on:
    /// otherwise, nothing can be tried.
    pub fn failed(&mut self, what: &str, retries: u32, power: bool, now: f64) -> Next {
        if power && self.tries < retries {
            self.tries += 1;
            self.clock_from = Some(now);
            return Next::Retry { left: retries - self.tries };
        }
        self.needs_look = Some(match self.tries {
            0 => what.to_owned(),
            tries => format!("{what} (tried {} times)", tries.saturating_add(1)),
        });
        Next::Look
    }

    /// When the present boot is overdue, if nothing changes; `timeout` is the setting `boot.timeout` in seconds. A machine
    /// that was booted and is out of reach is overdue as well if the server has `power` over it: it is rebooted then.
    pub fn deadline(&self, timeout: Option<f64>, power: bool) -> Option<f64> {
        if self.needs_look.is_some() {
            return None;
        }
        let from = match self.booted {
            None => self.progress(self.started?),
            Some(_) if power => self.link_lost? + LINK_GRACE_S,
            Some(_) => return None,
        };
        Some(from + timeout?)
    }

    /// The last moment from which the clock of the boot runs.
    fn progress(&self, started: f64) -> f64 {
        [self.copied_at, self.clock_from].into_iter().flatten().fold(started, f64::max)
    }

    /// The machine was switched off and nothing is to start.
    pub fn stop(&mut self) {
        *self = Self { old_boot_id: self.boot_id.take(), ..Self::default() };
    }

    /// The machine is off, since the server could not start it: what was tried still counts.
    pub fn not_started(&mut self) {
        let (tries, needs_look) = (self.tries, self.needs_look.take());
        self.stop();
        (self.tries, self.needs_look) = (tries, needs_look);
    }

    /// The machine asks for the first file of a boot; true if that shows a boot which this server did not start:
    /// nothing ran, or what ran has let go of its link or needed a look.
    pub fn loads(&mut self, now: f64) -> bool {
        let is_over = self.booted.is_some() && self.link_lost.is_some() || self.needs_look.is_some();
        let is_new = self.started.is_none() || is_over;
        if is_new {
            self.start(now);
        }
        is_new
    }

    /// The firmware of the machine asks for an address; true if that shows a boot which this server did not start. A
    /// system that runs does not ask in the way of a firmware: what ran has ended.
    pub fn powers_on(&mut self, now: f64) -> bool {
        let is_new = self.started.is_none() || self.booted.is_some() || self.needs_look.is_some();
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
        (self.tries, self.needs_look) = (0, None);
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
        if self.needs_look.is_some() {
            return Phase::Down;
        }
        let Some(started) = self.started else { return Phase::Off };
        if let Some(booted) = self.booted {
            return match self.link_lost {
                Some(lost) if now - lost > LINK_GRACE_S => Phase::Down,
                _ => Phase::Booted(booted - started),
            };
        }
        if timeout.is_some_and(|t| now - self.progress(started) > t) {
            Phase::Down
        } else {
            Phase::Booting(now - started)
        }
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
    fn a_machine_whose_firmware_asks() {
        let mut life = Life::default();
        assert!(life.powers_on(10.0) && !life.powers_on(11.0) && !life.loads(12.0));
        assert!(life.hello("a", 20.0) && life.report_booted("a", 25.0));
        // Its power was cut: nobody has noticed that its link is dead.
        assert!(life.powers_on(30.0) && !life.powers_on(31.0));
        assert_eq!(life.phase(32.0, T), Phase::Booting(2.0));
        assert!(!life.hello("a", 33.0));
        assert_eq!(life.failed("x", 9, false, 400.0), Next::Look);
        assert!(life.powers_on(500.0) && life.needs_look.is_none());
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
    fn a_failed_boot_is_tried_again_until_no_try_is_left() {
        let mut life = Life::default();
        assert_eq!(life.deadline(T, true), None, "nothing was started");
        assert!(!life.is_under_way());
        life.start(10.0);
        assert!(life.is_under_way());
        assert_eq!(
            (life.deadline(T, true), life.deadline(T, false), life.deadline(None, true)),
            (Some(190.0), Some(190.0), None)
        );
        assert_eq!(life.failed("boot timeout reached", 2, true, 191.0), Next::Retry { left: 1 });
        assert_eq!((life.deadline(T, true), life.phase(371.0, T)), (Some(371.0), Phase::Booting(361.0)));
        life.start(192.0);
        assert_eq!((life.tries, life.clock_from), (1, None));
        assert_eq!(life.failed("kernel panic", 2, true, 200.0), Next::Retry { left: 0 });
        life.start(201.0);
        assert_eq!(life.failed("boot timeout reached", 2, true, 400.0), Next::Look);
        assert_eq!(life.needs_look.as_deref(), Some("boot timeout reached (tried 3 times)"));
        assert_eq!((life.phase(401.0, None), life.deadline(T, true)), (Phase::Down, None));
        assert!(!life.is_under_way());
        // It boots after all.
        assert!(life.hello("a", 500.0) && life.needs_look.is_some());
        assert!(life.report_booted("a", 501.0));
        assert_eq!((life.phase(502.0, T), life.tries, &life.needs_look), (Phase::Booted(300.0), 0, &None));
        assert!(!life.is_under_way());
    }

    #[test]
    fn a_user_gives_all_tries_back() {
        let mut life = Life::default();
        life.start(0.0);
        assert_eq!(life.failed("x", 0, true, 1.0), Next::Look);
        assert_eq!(life.needs_look.as_deref(), Some("x"), "there was one try");
        life.restore(5.0);
        assert_eq!(
            (life.tries, life.phase(6.0, T), life.deadline(T, true)),
            (0, Phase::Booting(6.0), Some(185.0))
        );
        life.tries = 3;
        life.needs_look = Some("y".into());
        life.not_started();
        assert_eq!((life.started, life.tries, life.needs_look.as_deref()), (None, 3, Some("y")));
        life.stop();
        assert_eq!(life, Life::default());
        life.restore(5.0);
        assert_eq!(life, Life::default(), "nothing was started");
        // Nothing can be tried on a machine without power switch; a person may switch it on.
        life.start(0.0);
        assert_eq!(life.failed("x", 9, false, 1.0), Next::Look);
        assert!(life.loads(2.0) && life.needs_look.is_none());
        assert_eq!(life.phase(2.0, T), Phase::Booting(0.0));
    }

    #[test]
    fn out_of_reach_is_overdue_where_there_is_power() {
        let mut life = Life::default();
        life.start(0.0);
        assert!(life.hello("a", 1.0) && life.report_booted("a", 2.0));
        assert_eq!((life.deadline(T, true), life.deadline(T, false)), (None, None));
        life.lost("a", 10.0);
        assert_eq!(
            (life.deadline(T, true), life.deadline(T, false)),
            (Some(10.0 + LINK_GRACE_S + 180.0), None)
        );
        assert_eq!(life.deadline(None, true), None);
    }

    #[test]
    fn time_without_a_server_does_not_count() {
        let mut life = Life::default();
        life.resume(1.0);
        assert_eq!(life, Life::default());
        life.start(0.0);
        life.resume(1000.0);
        assert_eq!((life.deadline(T, true), life.phase(1180.0, T)), (Some(1180.0), Phase::Booting(1180.0)));
        assert_eq!(life.phase(1180.5, T), Phase::Down);
        // A report of a copy that is older changes nothing, and a newer one counts.
        assert!(life.copies("a", BootMode::HybridVolatile, 1, 900.0));
        assert_eq!(life.deadline(T, true), Some(1180.0));
        assert!(life.copies("a", BootMode::HybridVolatile, 2, 1100.0));
        assert_eq!(life.deadline(T, true), Some(1280.0));
        // A booted node has its grace from here.
        assert!(life.hello("a", 1190.0) && life.report_booted("a", 1200.0) && life.link_lost.is_none());
        life.resume(5000.0);
        assert_eq!(life.phase(5000.0 + LINK_GRACE_S, T), Phase::Booted(1200.0));
        assert_eq!(life.phase(5000.5 + LINK_GRACE_S, T), Phase::Down);
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
