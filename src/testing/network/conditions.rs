//! What a simulated network is like.

use std::time::Duration;

use super::super::random::Random;

/// What a simulated network is like, and how badly the backends on it behave. Everything is drawn from the network's seed.
///
/// ```
/// use std::time::Duration;
/// use ropewalk::testing::Conditions;
///
/// let slow = Conditions::ideal().latency(Duration::from_millis(40), Duration::from_millis(90)).bandwidth(Some(16_000));
/// let rough = Conditions::rough(7);
/// # drop((slow, rough));
/// ```
#[derive(Debug, Clone)]
pub struct Conditions {
    pub(super) latency: (Duration, Duration),
    pub(super) bandwidth: Option<u64>,
    pub(super) segment: usize,
    pub(super) chunk: usize,
    pub(super) window: usize,
    pub(super) late_timers: Duration,
    pub(super) names: (Duration, Duration),
    pub(super) jobs: (Duration, Duration),
    /// Of a thousand: sends that are cut short, completions that come out of order, that nobody asked for, or that are for
    /// somebody who is gone, and waits that end for no reason.
    pub(super) short_sends: u32,
    pub(super) reordered: u32,
    pub(super) spurious: u32,
    pub(super) stale: u32,
    /// Of a thousand: sends whose outcome is told in the next turn, as a ring does.
    pub(super) slow_sends: u32,
    /// Whether small segments are held back, and acknowledgements delayed.
    pub(super) nagle: bool,
}

impl Conditions {
    /// A network without latency, on which everything arrives at once and as it was sent.
    pub fn ideal() -> Self {
        Self {
            latency: (Duration::ZERO, Duration::ZERO),
            bandwidth: None,
            segment: usize::MAX,
            chunk: usize::MAX,
            window: WINDOW,
            late_timers: Duration::ZERO,
            names: (Duration::ZERO, Duration::ZERO),
            jobs: (Duration::ZERO, Duration::ZERO),
            short_sends: 0,
            reordered: 0,
            spurious: 0,
            stale: 0,
            slow_sends: 0,
            nagle: false,
        }
    }

    /// A network that is bad in ways that a seed chooses: some have latency, some are slow, some cut everything into single
    /// bytes, some hold small segments back, on some the backends misbehave.
    pub fn rough(seed: u64) -> Self {
        // Not the network's own numbers, which start from the same seed.
        let mut random = Random::new(seed ^ 0x726f_7567_685f_7365);
        let mut conditions = Self::ideal();
        if random.chance(700) {
            let least = random.below(50_000);
            let most = least + random.below(100_000);
            conditions.latency = (Duration::from_micros(least), Duration::from_micros(most));
        }
        if random.chance(300) {
            conditions.bandwidth = Some(random.between(4_000, 1_000_000));
        }
        conditions.segment = *pick(&mut random, &[1, 2, 7, 536, 1_460, 9_000, usize::MAX]);
        conditions.chunk = *pick(&mut random, &[1, 3, 64, 4_096, usize::MAX]);
        conditions.window = *pick(&mut random, &[1, 16, 1_024, WINDOW, 1 << 20]);
        conditions.late_timers = Duration::from_micros(*pick(&mut random, &[0, 0, 1, 1_000, 20_000]));
        conditions.names = (Duration::ZERO, Duration::from_millis(*pick(&mut random, &[0, 10, 3_000])));
        conditions.jobs = (Duration::ZERO, Duration::from_millis(*pick(&mut random, &[0, 1, 2_000])));
        for chance in
            [&mut conditions.short_sends, &mut conditions.reordered, &mut conditions.spurious, &mut conditions.stale]
        {
            *chance = *pick(&mut random, &[0, 0, 50, 500]);
        }
        conditions.slow_sends = *pick(&mut random, &[0, 0, 500, 1_000]);
        conditions.nagle = random.chance(300);
        conditions
    }

    /// How long a packet is under way: something from `least` to `most`.
    pub fn latency(mut self, least: Duration, most: Duration) -> Self {
        self.latency = (least, most.max(least));
        self
    }

    /// How many bytes a second one direction of a connection carries; `None` is no limit.
    pub fn bandwidth(mut self, bytes_per_second: Option<u64>) -> Self {
        self.bandwidth = bytes_per_second.map(|bytes| bytes.max(1));
        self
    }

    /// The most bytes that travel together; at least one.
    pub fn segment(mut self, bytes: usize) -> Self {
        self.segment = bytes.max(1);
        self
    }

    /// The most bytes that one `data_received` is given; at least one. How many it is each time, the seed says.
    pub fn chunk(mut self, bytes: usize) -> Self {
        self.chunk = bytes.max(1);
        self
    }

    /// How many bytes a sender may have on their way to a peer that does not read; at least one. 64 KiB unless said otherwise,
    /// whatever sizes of buffers the options of ports and connections ask for.
    pub fn window(mut self, bytes: usize) -> Self {
        self.window = bytes.max(1);
        self
    }

    /// How late, at most, a wait ends that nothing but its timeout ends.
    pub fn late_timers(mut self, at_most: Duration) -> Self {
        self.late_timers = at_most;
        self
    }

    /// How long the looking up of a name takes: something from `least` to `most`.
    pub fn names(mut self, least: Duration, most: Duration) -> Self {
        self.names = (least, most.max(least));
        self
    }

    /// How long a job in a thread takes: something from `least` to `most`.
    pub fn jobs(mut self, least: Duration, most: Duration) -> Self {
        self.jobs = (least, most.max(least));
        self
    }

    /// How badly the backends behave, of a thousand times each: sends that take less than there is room for, completions in
    /// another order than that of their causes, completions and ends of waits for no reason, and completions for connections
    /// that are closed. An engine has to live with all of it.
    pub fn misbehaviour(mut self, short_sends: u32, reordered: u32, spurious: u32, stale: u32) -> Self {
        (self.short_sends, self.reordered, self.spurious, self.stale) = (short_sends, reordered, spurious, stale);
        self
    }

    /// How many of a thousand sends tell what came of them in the next turn, as those of a backend do that completes them. The bytes
    /// count as [queued](crate::Transport::queued_bytes) until then.
    pub fn slow_sends(mut self, of_a_thousand: u32) -> Self {
        self.slow_sends = of_a_thousand;
        self
    }

    /// Simulates Nagle's algorithm and delayed acknowledgements. A small segment is held while earlier bytes are unacknowledged, unless
    /// [the algorithm is off](crate::Transport::set_tcp_no_delay) on that connection. An acknowledgement leaves with an answer, at once
    /// for every second full segment, and otherwise after 40 ms. A segment then has at most 1,460 bytes. The sockets of a
    /// [`Peer`](crate::testing::Peer) have the algorithm on. Default: `false`.
    pub fn nagle(mut self, on: bool) -> Self {
        self.nagle = on;
        self
    }

    /// The most bytes that one turn can bring.
    pub(in crate::testing) fn finest(&self) -> usize {
        self.segment.min(self.chunk).min(self.window)
    }

    /// A window with which a test of many transfers comes to an end: what it holds takes no more than 1,000 pieces, and a second.
    pub(in crate::testing) fn window_for_tests(&self) -> usize {
        let a_second = self.bandwidth.map_or(usize::MAX, |bytes| bytes as usize);
        self.window.min(self.segment.min(self.chunk).saturating_mul(1_000)).min(a_second)
    }
}

impl Default for Conditions {
    fn default() -> Self {
        Self::ideal()
    }
}

/// A usual socket buffer: 64 KiB.
const WINDOW: usize = 64 * 1024;

fn pick<'a, T>(random: &mut Random, choices: &'a [T]) -> &'a T {
    &choices[random.below(choices.len() as u64) as usize]
}
