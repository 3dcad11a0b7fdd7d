//! What processes cost, as the Linux kernel counts it.

use anyhow::Context as _;
use std::fs;
use std::time::Duration;

/// Length of the ticks in `/proc/PID/stat`: 1/100 s on every architecture we run on (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// CPU time that the living threads of a process have used, in nanoseconds as the scheduler counts
/// them: `/proc/PID/stat` has only hundredths of a second. Exact while the threads sleep; the time of
/// threads that have ended is lost, but a server's threads live as long as it does.
pub fn process_cpu(pid: u32) -> anyhow::Result<Duration> {
    let folder = format!("/proc/{pid}/task");
    let threads = fs::read_dir(&folder).with_context(|| format!("cannot read {folder}"))?;
    let mut nanoseconds = 0;
    for thread in threads {
        // A thread may end between the listing and the reading.
        if let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) {
            nanoseconds += first_number(&text).context("schedstat has no number")?;
        }
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// The same of those threads of this process that bear a name.
pub fn cpu_of_threads(name: &str) -> anyhow::Result<Duration> {
    let mut nanoseconds = 0;
    for thread in fs::read_dir("/proc/self/task").context("cannot read /proc/self/task")? {
        let path = thread?.path();
        if fs::read_to_string(path.join("comm")).is_ok_and(|found| found.trim() == name)
            && let Ok(text) = fs::read_to_string(path.join("schedstat"))
        {
            nanoseconds += first_number(&text).context("schedstat has no number")?;
        }
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// CPU time of a process and its children, the ended ones included: a postmaster and its backends.
pub fn family_cpu(parent: u32) -> anyhow::Result<Duration> {
    let ended = stat(parent)?.ended_children;
    let mut sum = ended + process_cpu(parent)?;
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // Any process may end at any moment; then its time is among the parent's ended children.
        if stat(pid).is_ok_and(|stat| stat.parent == parent) {
            sum += process_cpu(pid).unwrap_or_default();
        }
    }
    Ok(sum)
}

/// How this machine has spent its time so far, all cores together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineTime {
    pub all: u64,
    pub idle: u64,
    /// Idle while something waited for a disk.
    pub disk: u64,
}

pub fn machine_time() -> anyhow::Result<MachineTime> {
    let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    parse_machine(&text).context("/proc/stat is not as proc(5) says")
}

fn parse_machine(text: &str) -> Option<MachineTime> {
    let fields = text.strip_prefix("cpu ")?.lines().next()?;
    let ticks: Result<Vec<u64>, _> = fields.split_ascii_whitespace().map(str::parse).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal; what guests used is in user already.
    let ticks = ticks.ok()?;
    let [_, _, _, idle, disk, ..] = ticks[..] else {
        return None;
    };
    Some(MachineTime {
        all: ticks.iter().take(8).sum(),
        idle,
        disk,
    })
}

/// The process that started this one.
pub fn parent_of(pid: u32) -> anyhow::Result<u32> {
    Ok(stat(pid)?.parent)
}

/// The name of the program a process runs.
pub fn name_of(pid: u32) -> anyhow::Result<String> {
    let path = format!("/proc/{pid}/comm");
    let name = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    Ok(name.trim().to_owned())
}

/// Memory of a process that is in RAM now (`VmRSS`), in bytes.
pub fn resident_memory(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let kibibytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(first_number)
        .with_context(|| format!("{path} has no VmRSS"))?;
    Ok(kibibytes * 1024)
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    ended_children: Duration,
}

fn stat(pid: u32) -> anyhow::Result<Stat> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    parse_stat(&text).with_context(|| format!("{path} is not as proc(5) says"))
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name stands in parentheses and may hold some itself; proc(5) counts the fields from 1.
    let (_, after_name) = text.rsplit_once(')')?;
    let fields: Vec<&str> = after_name.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3);
    let ticks = |number| field(number)?.parse::<u32>().ok();
    Some(Stat {
        parent: field(4)?.parse().ok()?,
        ended_children: TICK * (ticks(16)? + ticks(17)?),
    })
}

fn first_number(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stopwatch::Stopwatch;

    #[test]
    fn a_stat_line_is_read_whatever_the_program_is_called() {
        let line = "7 (a) b (c) S 3 7 7 0 -1 4194560 1 2 0 0 11 12 13 14 20 0 1 0 5 6 7";
        let expected = Stat {
            parent: 3,
            ended_children: Duration::from_millis(270),
        };
        assert_eq!(parse_stat(line), Some(expected));
        assert_eq!(parse_stat("7 (a) S 3"), None);
    }

    #[test]
    fn the_machine_is_busy_idle_or_waits_for_its_disk() {
        let text = "cpu  10 1 5 100 20 0 1 3 7 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        let expected = MachineTime {
            all: 140,
            idle: 100,
            disk: 20,
        };
        assert_eq!(parse_machine(text), Some(expected));
        assert!(machine_time().unwrap().all > 0);
    }

    #[test]
    fn work_is_counted_and_memory_is_there() {
        let me = std::process::id();
        let (watch, before) = (Stopwatch::start(), process_cpu(me).unwrap());
        while watch.elapsed() < Duration::from_millis(100) {}
        // The other tests' threads count too, and a busy machine may have given us less than all.
        assert!(process_cpu(me).unwrap() - before > Duration::from_millis(5));
        assert!(resident_memory(me).unwrap() > 1 << 20);
        assert!(family_cpu(parent_of(me).unwrap()).unwrap() >= before);
    }
}
