//! Processes that outlive us, and finding them again.
//!
//! A process id alone may have been given to somebody else since; with the start time it is an identity
//! for as long as the machine runs.

mod cgroup;

pub use cgroup::{Cgroup, cgroup_version_2, systemd_is_init};

use crate::{During, Result, checked};
use rustix::process::{Pid, PidfdFlags};
use serde::{Deserialize, Serialize};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Whether this machine's CPU also runs programs of its family's 32-bit ancestor, by the kernel's word: it gives such
/// a thread the personality of a 32-bit machine (personality(2)) only where it can run them.
pub fn runs_32_bit() -> bool {
    /// `PER_LINUX32` of the kernel's headers.
    const PER_LINUX32: libc::c_ulong = 8;
    // The personality is the thread's own, and ends with it.
    let asked = std::thread::spawn(|| {
        // SAFETY: personality changes kernel state of the calling thread only; no memory is shared or lost.
        checked(unsafe { libc::personality(PER_LINUX32) }.into()).is_ok()
    });
    asked.join().unwrap_or(false)
}

/// The identity of a process on this boot of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number.
    pub pid: i32,
    /// When it started, in clock ticks since boot (field 22 of `/proc/<pid>/stat`, proc(5)).
    pub start_time: u64,
}

impl ProcessId {
    /// The identity of the process that has this number now; `NotFound` if there is none.
    pub fn of(pid: i32) -> io::Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name in parentheses may contain anything, so count from its end: state is field 3.
        let after = stat.rsplit_once(") ").map(|(_, rest)| rest);
        let start = after.and_then(|rest| rest.split(' ').nth(19)).and_then(|f| f.parse().ok());
        start.map(|start_time| Self { pid, start_time }).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat has no start time"))
        })
    }

    /// Our own identity.
    pub fn of_self() -> io::Result<Self> {
        Self::of(std::process::id() as i32)
    }

    /// Whether it still exists (a zombie does).
    pub fn exists(self) -> bool {
        Self::of(self.pid).is_ok_and(|now| now == self)
    }

    /// A descriptor of the process, readable once it has ended; `ESRCH` if it is gone.
    pub fn open(self) -> io::Result<OwnedFd> {
        let gone = || io::Error::from_raw_os_error(libc::ESRCH);
        let pid = Pid::from_raw(self.pid).ok_or_else(gone)?;
        let fd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
        // The descriptor pins the process that it was opened on: compare only now.
        if self.exists() { Ok(fd) } else { Err(gone()) }
    }

    /// Sends a signal, by number, to exactly this process; `ESRCH` if it is gone.
    pub fn signal(self, signal: i32) -> io::Result<()> {
        signal_fd(self.open()?, signal)
    }
}

/// Sends a signal, by number, to the process of a descriptor.
pub fn signal_fd(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open; a null siginfo means "as kill(2)"; nothing else is touched.
    checked(unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_fd().as_raw_fd(), signal, no_info, 0)
    })
    .map(drop)
}

/// Ends a child by SIGKILL when it is dropped, also if the child is in the hands of a thread that waits for it. An
/// operation holds it together with such a thread: when the operation is dropped, the thread stops waiting.
#[derive(Debug)]
pub struct KillOnDrop(OwnedFd);

impl KillOnDrop {
    /// For a child that was not waited for.
    pub fn of(child: &std::process::Child) -> io::Result<Self> {
        ProcessId::of(child.id() as i32)?.open().map(Self)
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        // Usually it has ended already.
        let _ended = signal_fd(&self.0, libc::SIGKILL);
    }
}

/// Lets the calling thread run as soon as it wants to, before all ordinary ones (`SCHED_RR`, sched(7)). The kernel leaves
/// these a part of each second, 5 % by default. Threads that it starts later are ordinary.
///
/// # Errors
/// The kernel refuses: root is needed, and in some control groups nobody may.
pub fn be_prompt() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 1 };
    // SAFETY: the pointer is to a local that outlives the call; 0 is the calling thread.
    checked(unsafe {
        libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &raw const parameters).into()
    })
    .map(drop)
}

/// Makes this process the parent of descendants whose parents end (`PR_SET_CHILD_SUBREAPER`).
pub fn become_subreaper() -> Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .during(|| "become the parent of orphaned descendants".into())
}

/// How a child ended, as a shell reports it: its status, or 128 and the signal's number.
/// Blocks until it has ended. The child may be an adopted one (see [`become_subreaper`]).
pub fn wait_for(pid: i32) -> io::Result<i32> {
    let mut status = 0;
    loop {
        // SAFETY: the pointer is to a local that outlives the call.
        match checked(unsafe { libc::waitpid(pid, &raw mut status, 0) }.into()) {
            Ok(_) if libc::WIFSIGNALED(status) => return Ok(128 + libc::WTERMSIG(status)),
            Ok(_) => return Ok(libc::WEXITSTATUS(status)),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Starts a command that does not belong to us: own session, parent is init (or a subreaper), and our end
/// neither kills it nor leaves a zombie. Returns once its program runs.
///
/// Its standard streams are as set in `command`; set all three.
pub fn spawn_detached(command: &mut Command) -> Result<ProcessId> {
    let what = {
        let program = command.get_program().to_string_lossy().into_owned();
        move || format!("start {program}")
    };
    let (mut reader, writer) = std::io::pipe().during(&what)?;
    let report = writer.as_raw_fd();
    // SAFETY: the closure runs in the child between fork and exec, where one thread exists. It makes
    // system calls only: a raw clone(2) (so that no lock of libc is touched), _exit, setsid, getpid and
    // write on a descriptor that the parent keeps open until spawn() has returned. The first child ends at
    // once; the second goes on to exec with the same memory.
    unsafe {
        command.pre_exec(move || {
            let no_stack = 0usize;
            match libc::syscall(libc::SYS_clone, libc::c_long::from(libc::SIGCHLD), no_stack, 0, 0, 0) {
                -1 => return Err(io::Error::last_os_error()),
                0 => {}
                _ => libc::_exit(0),
            }
            rustix::process::setsid()?;
            // Not libc's getpid(), which some C libraries cache across a raw clone.
            let pid = (libc::syscall(libc::SYS_getpid) as i32).to_ne_bytes();
            if libc::write(report, pid.as_ptr().cast(), pid.len()) != pid.len() as isize {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    let mut first = command.spawn().during(&what)?;
    drop(writer);
    first.wait().during(&what)?;
    let mut pid = [0; 4];
    reader.read_exact(&mut pid).during(&what)?;
    ProcessId::of(i32::from_ne_bytes(pid)).during(&what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;

    fn quiet(program: &str) -> Command {
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    #[test]
    fn detached_process_has_its_own_session_and_another_parent() {
        let id = spawn_detached(quiet("sleep").arg("60")).unwrap();
        assert!(id.exists());
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", id.pid)).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        assert_ne!(fields[1], std::process::id().to_string(), "parent");
        assert_eq!(fields[3], id.pid.to_string(), "session");
        let fd = id.open().unwrap();
        id.signal(libc::SIGKILL).unwrap();
        let mut ended = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
        let limit = rustix::time::Timespec { tv_sec: 10, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut ended, Some(&limit)).unwrap(), 1, "the kill did not end it");
    }

    #[test]
    fn detached_start_error_names_the_program() {
        let error = spawn_detached(&mut quiet("/no/such/program")).unwrap_err();
        assert_eq!(error.errno(), Some(libc::ENOENT));
        assert!(error.to_string().starts_with("cannot start /no/such/program: "), "{error}");
    }

    #[test]
    fn same_number_other_time_is_another_process() {
        let me = ProcessId::of_self().unwrap();
        assert!(me.exists());
        let other = ProcessId { start_time: me.start_time + 1, ..me };
        assert!(!other.exists());
        assert_eq!(other.signal(0).unwrap_err().raw_os_error(), Some(libc::ESRCH));
        assert!(me.signal(0).is_ok());
    }

    #[test]
    fn a_prompt_thread_and_its_children() {
        // Field 41 of stat, proc(5): the scheduling policy.
        let policy = || {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            stat.rsplit_once(") ").unwrap().1.split(' ').nth(38).unwrap().parse::<i32>().unwrap()
        };
        let found = std::thread::spawn(move || {
            let changed = be_prompt();
            (changed, policy(), std::thread::spawn(policy).join().unwrap())
        });
        match found.join().unwrap() {
            (Ok(()), own, child) => assert_eq!((own, child), (libc::SCHED_RR, libc::SCHED_OTHER)),
            // A control group without time for such threads.
            (Err(e), own, _) => assert_eq!((e.raw_os_error(), own), (Some(libc::EPERM), libc::SCHED_OTHER)),
        }
    }

    #[test]
    #[allow(clippy::zombie_processes)] // wait_for waits for them; that is the test
    fn wait_reports_status_and_signal() {
        let child = quiet("sh").args(["-c", "exit 7"]).spawn().unwrap();
        assert_eq!(wait_for(child.id() as i32).unwrap(), 7);
        let child = quiet("sh").args(["-c", "kill -9 $$"]).spawn().unwrap();
        assert_eq!(wait_for(child.id() as i32).unwrap(), 137);
    }
}
