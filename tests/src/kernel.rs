//! A kernel that is out of something: what a program starts is run below a filter, by which the test decides of system calls
//! one by one (seccomp_unotify(2)). One that is denied fails as if the kernel had done so, and all others are the kernel's own.
//!
//! Needs a filter for itself: a test that is already below one of this kind is told so.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::libc::{self, c_int, c_long};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The two requests of a listener, which the C library has no names for: `_IOWR('!', 0, struct seccomp_notif)` and
/// `_IOWR('!', 1, struct seccomp_notif_resp)` of linux/seccomp.h.
const RECEIVE: libc::Ioctl = read_write(0, size_of::<libc::seccomp_notif>());
const SEND: libc::Ioctl = read_write(1, size_of::<libc::seccomp_notif_resp>());

const fn read_write(number: libc::Ioctl, size: usize) -> libc::Ioctl {
    (3 << 30) | ((size as libc::Ioctl) << 16) | ((b'!' as libc::Ioctl) << 8) | number
}

/// What is asked of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A process or a thread.
    Task,
    /// A process that is a copy of the one that asks, as the C library's `fork` does.
    Fork,
    /// A file or a directory that is not there.
    File,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Process(i32),
    /// Anybody else who is below the filter.
    AnyBut(i32),
}

/// What is not to be had.
#[derive(Clone, Copy, Debug)]
pub struct Denial {
    pub asked: Asked,
    pub by: By,
    /// What the kernel says instead.
    pub errno: c_int,
}

/// The kernel as what was started below it sees it.
#[derive(Clone, Debug, Default)]
pub struct Kernel {
    denial: Arc<Mutex<Option<Denial>>>,
    denied: Arc<AtomicUsize>,
}

impl Kernel {
    /// Runs `start` below a kernel that denies nothing yet. What it starts stays below it.
    ///
    /// # Panics
    /// This kernel has no filters of this kind, or the test is below one already.
    pub fn around<T: Send>(start: impl FnOnce() -> T + Send) -> (Self, T) {
        let kernel = Self::default();
        let deciding = kernel.clone();
        let (hand_over, listener) = std::sync::mpsc::channel::<OwnedFd>();
        // Before the filter, which would ask it about itself. Ends with the last process below.
        let decide = move || listener.iter().for_each(|listener| deciding.decide_all(&listener));
        std::thread::Builder::new().name("kernel".to_owned()).spawn(decide).expect("a thread");
        let begin = move || {
            let listener = listen().expect("the kernel lets system calls be decided on");
            hand_over.send(listener).expect("the thread lives");
            start()
        };
        let started = std::thread::scope(|scope| scope.spawn(begin).join());
        let started = started.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (kernel, started)
    }

    /// From now on.
    pub fn deny(&self, denial: Denial) {
        *self.denial.lock().unwrap_or_else(PoisonError::into_inner) = Some(denial);
    }

    /// Denies nothing any more.
    pub fn allow(&self) {
        *self.denial.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// How often something was denied so far.
    pub fn denied(&self) -> usize {
        self.denied.load(Ordering::Relaxed)
    }

    fn decide_all(&self, listener: &OwnedFd) {
        loop {
            let mut ready = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
            if poll(&mut ready, PollTimeout::NONE).is_err() {
                continue;
            }
            let events = ready[0].revents().unwrap_or(PollFlags::empty());
            if events.contains(PollFlags::POLLIN) {
                self.decide(listener);
            } else if events.contains(PollFlags::POLLHUP) {
                return;
            }
        }
    }

    /// One call. Whoever made it may have been killed meanwhile: then there is nothing to decide.
    fn decide(&self, listener: &OwnedFd) {
        let Some(call) = receive(listener) else { return };
        let denial = *self.denial.lock().unwrap_or_else(PoisonError::into_inner);
        let errno = denial.filter(|denial| denial.is_of(&call)).map(|denial| denial.errno);
        self.denied.fetch_add(usize::from(errno.is_some()), Ordering::Relaxed);
        send(listener, call.id, errno);
    }
}

impl Denial {
    fn is_of(&self, call: &libc::seccomp_notif) -> bool {
        let number = c_long::from(call.data.nr);
        let is_task = TASKS.contains(&number);
        let is_asked = match self.asked {
            Asked::Task => is_task,
            Asked::Fork => number == libc::SYS_clone && call.data.args[0] & CLONE_THREAD == 0,
            Asked::File => !is_task,
        };
        let by = match self.by {
            By::Process(pid) => process_of(call.pid) == Some(pid),
            By::AnyBut(pid) => process_of(call.pid).is_some_and(|by| by != pid),
        };
        is_asked && by
    }
}

/// The process of a thread.
fn process_of(thread: u32) -> Option<i32> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

const CLONE_THREAD: u64 = 0x10000;

#[cfg(target_arch = "x86_64")]
const TASKS: [c_long; 4] = [libc::SYS_clone, libc::SYS_clone3, libc::SYS_fork, libc::SYS_vfork];
#[cfg(not(target_arch = "x86_64"))]
const TASKS: [c_long; 2] = [libc::SYS_clone, libc::SYS_clone3];

#[cfg(target_arch = "x86_64")]
const DIRECTORIES: [c_long; 2] = [libc::SYS_mkdir, libc::SYS_mkdirat];
#[cfg(not(target_arch = "x86_64"))]
const DIRECTORIES: [c_long; 1] = [libc::SYS_mkdirat];

/// Asks about new tasks, directories and files; lets everything else pass.
fn program() -> Vec<libc::sock_filter> {
    let word = u16::try_from(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS).expect("small");
    let equal = u16::try_from(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K).expect("small");
    let any_bit = u16::try_from(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K).expect("small");
    let end = u16::try_from(libc::BPF_RET | libc::BPF_K).expect("small");
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let number = |call: c_long| u32::try_from(call).expect("small");
    // Offsets in `struct seccomp_data`: the call's number, and the lower half of its third argument.
    let third_argument = if cfg!(target_endian = "little") { 32 } else { 36 };
    let mut program = vec![step(word, 0, 0, 0)];
    for call in TASKS.into_iter().chain(DIRECTORIES) {
        program.push(step(equal, 0, 1, number(call)));
        program.push(step(end, 0, 0, libc::SECCOMP_RET_USER_NOTIF));
    }
    program.push(step(equal, 0, 3, number(libc::SYS_openat)));
    program.push(step(word, 0, 0, third_argument));
    program.push(step(any_bit, 0, 1, libc::O_CREAT.cast_unsigned()));
    program.push(step(end, 0, 0, libc::SECCOMP_RET_USER_NOTIF));
    program.push(step(end, 0, 0, libc::SECCOMP_RET_ALLOW));
    program
}

/// Puts the calling thread below the filter.
fn listen() -> io::Result<OwnedFd> {
    nix::sys::prctl::set_no_new_privs()?;
    let mut program = program();
    let program =
        libc::sock_fprog { len: u16::try_from(program.len()).expect("small"), filter: program.as_mut_ptr() };
    #[expect(unsafe_code, reason = "no library has this kind of filter")]
    // SAFETY: the pointer is to a program of that length, which the kernel copies before it returns; what it returns is a
    // new descriptor, which nobody else owns.
    unsafe {
        let listener = libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        );
        let listener = c_int::try_from(listener).expect("a descriptor or -1");
        if listener < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(listener)) }
    }
}

fn receive(listener: &OwnedFd) -> Option<libc::seccomp_notif> {
    #[expect(unsafe_code, reason = "no library has this request")]
    // SAFETY: the structure is of the kind that the request fills, and zero, as it must be; any bytes are a value of it.
    unsafe {
        let mut call: libc::seccomp_notif = std::mem::zeroed();
        (libc::ioctl(listener.as_raw_fd(), RECEIVE, &raw mut call) == 0).then_some(call)
    }
}

/// Lets the call through, or has it fail.
fn send(listener: &OwnedFd, id: u64, errno: Option<c_int>) {
    let flags = if errno.is_none() { libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE } else { 0 };
    let flags = u32::try_from(flags).expect("small");
    let mut answer = libc::seccomp_notif_resp { id, val: 0, error: -errno.unwrap_or(0), flags };
    #[expect(unsafe_code, reason = "no library has this request")]
    // SAFETY: the structure is of the kind that the request reads. An error means that the caller is gone.
    unsafe {
        libc::ioctl(listener.as_raw_fd(), SEND, &raw mut answer);
    }
}
