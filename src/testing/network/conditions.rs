//! Conditions of a simulated network.

use std::time::Duration;

use crate::random::Random;

/// Conditions of a simulated network: its speed, its limits, and how badly its backends behave.
/// Everything random is drawn from the network's seed.
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
    /// Per mille: sends that are cut short, completions out of order, completions without a cause
    /// and waits that end for no reason, and completions for closed connections.
    pub(super) short_sends: u32,
    pub(super) reordered: u32,
    pub(super) spurious: u32,
    pub(super) stale: u32,
    /// Per mille of sends whose result is reported in the next turn, as on a ring.
    pub(super) slow_sends: u32,
    /// Per mille of datagrams that are lost, doubled, and late, with the longest delay.
    pub(super) datagram_loss: u32,
    pub(super) datagram_duplicates: u32,
    pub(super) datagram_reordering: (u32, Duration),
    /// Datagrams with more bytes are refused, or lost.
    pub(super) refused_above: usize,
    pub(super) lost_above: usize,
    /// Holds back small segments, and delays acknowledgements.
    pub(super) nagle: bool,
}

impl Conditions {
    /// Returns an ideal network, without latency, on which everything arrives at once and uncut.
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
            datagram_loss: 0,
            datagram_duplicates: 0,
            datagram_reordering: (0, Duration::ZERO),
            refused_above: usize::MAX,
            lost_above: usize::MAX,
            nagle: false,
        }
    }

    /// Returns a bad network, in ways chosen by the seed: some have latency, some are slow, some
    /// cut everything into single bytes, some hold small segments back, on some the backends
    /// misbehave.
    pub fn rough(seed: u64) -> Self {
        // Differs from the network's own random numbers, which start from the same seed.
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
        // Drawn last, so that a seed means the same for streams as before there were datagrams.
        for chance in [&mut conditions.datagram_loss, &mut conditions.datagram_duplicates] {
            *chance = *pick(&mut random, &[0, 10, 100, 300]);
        }
        let late = *pick(&mut random, &[0, 10, 100, 500]);
        conditions.datagram_reordering = (late, Duration::from_millis(*pick(&mut random, &[0, 1, 20, 500])));
        conditions
    }

    /// Sets the latency of a packet, drawn between `least` and `most`.
    pub fn latency(mut self, least: Duration, most: Duration) -> Self {
        self.latency = (least, most.max(least));
        self
    }

    /// Sets the bandwidth of each direction of a connection, in bytes per second. `None` is no
    /// limit.
    pub fn bandwidth(mut self, bytes_per_second: Option<u64>) -> Self {
        self.bandwidth = bytes_per_second.map(|bytes| bytes.max(1));
        self
    }

    /// Sets the maximum size of a segment, in bytes. At least one.
    pub fn segment(mut self, bytes: usize) -> Self {
        self.segment = bytes.max(1);
        self
    }

    /// Sets the maximum number of bytes for one `data_received`. At least one. The size of each
    /// chunk is drawn from the seed.
    pub fn chunk(mut self, bytes: usize) -> Self {
        self.chunk = bytes.max(1);
        self
    }

    /// Sets the number of bytes that a sender may have under way to a peer that does not read. At
    /// least one. Default: 64 KiB, whatever buffer sizes the options of ports and connections ask
    /// for.
    pub fn window(mut self, bytes: usize) -> Self {
        self.window = bytes.max(1);
        self
    }

    /// Sets the maximum delay of a wait that ends by its timeout.
    pub fn late_timers(mut self, at_most: Duration) -> Self {
        self.late_timers = at_most;
        self
    }

    /// Sets the duration of name lookups, drawn between `least` and `most`.
    pub fn names(mut self, least: Duration, most: Duration) -> Self {
        self.names = (least, most.max(least));
        self
    }

    /// Sets the duration of jobs in threads, drawn between `least` and `most`.
    pub fn jobs(mut self, least: Duration, most: Duration) -> Self {
        self.jobs = (least, most.max(least));
        self
    }

    /// Sets how badly the backends behave, per mille each: sends that take less than there is room
    /// for; completions out of the order of their causes; completions and ends of waits for no
    /// reason; completions for closed connections. An engine has to cope with all of them.
    pub fn misbehaviour(mut self, short_sends: u32, reordered: u32, spurious: u32, stale: u32) -> Self {
        (self.short_sends, self.reordered, self.spurious, self.stale) = (short_sends, reordered, spurious, stale);
        self
    }

    /// Sets the per mille of sends whose result is reported in the next turn, as on a
    /// completion-based backend. Until then their bytes count as
    /// [queued](crate::Transport::queued_bytes).
    pub fn slow_sends(mut self, of_a_thousand: u32) -> Self {
        self.slow_sends = of_a_thousand;
        self
    }

    /// Sets the per mille of datagrams that are lost. A datagram to several hosts is lost for each
    /// by itself.
    pub fn datagram_loss(mut self, of_a_thousand: u32) -> Self {
        self.datagram_loss = of_a_thousand;
        self
    }

    /// Sets the per mille of datagrams that arrive twice.
    pub fn datagram_duplicates(mut self, of_a_thousand: u32) -> Self {
        self.datagram_duplicates = of_a_thousand;
        self
    }

    /// Sets the per mille of datagrams that are late, so that later ones overtake them, and the
    /// longest delay. The others of a socket stay in order.
    pub fn datagram_reordering(mut self, of_a_thousand: u32, at_most: Duration) -> Self {
        self.datagram_reordering = (of_a_thousand, at_most);
        self
    }

    /// Refuses datagrams with more than this many bytes, as a system does that knows the limit of
    /// the path: [`write`](crate::DatagramTransport::write) fails with
    /// [`MessageTooLong`](crate::error::DatagramError::MessageTooLong).
    pub fn refuse_datagrams_above(mut self, bytes: usize) -> Self {
        self.refused_above = bytes;
        self
    }

    /// Loses datagrams with more than this many bytes, as a path does that drops fragments.
    pub fn lose_datagrams_above(mut self, bytes: usize) -> Self {
        self.lost_above = bytes;
        self
    }

    /// Simulates Nagle's algorithm and delayed acknowledgements. Default: `false`.
    ///
    /// A small segment is held while earlier bytes are unacknowledged, unless
    /// [the algorithm is off](crate::Transport::set_tcp_no_delay) on that connection. An
    /// acknowledgement leaves with an answer, at once for every second full segment, and otherwise
    /// after 40 ms. A segment then has at most 1,460 bytes. The sockets of a
    /// [`Peer`](crate::testing::Peer) have the algorithm on.
    pub fn nagle(mut self, on: bool) -> Self {
        self.nagle = on;
        self
    }

    /// Returns conditions under which every datagram arrives, once and in order.
    pub(in crate::testing) fn with_safe_datagrams(self) -> Self {
        self.datagram_loss(0).datagram_duplicates(0).datagram_reordering(0, Duration::ZERO)
    }

    /// Returns the maximum number of bytes that one turn can deliver.
    pub(in crate::testing) fn finest(&self) -> usize {
        self.segment.min(self.chunk).min(self.window)
    }

    /// Returns a window with which a test of many transfers terminates: one window takes at most
    /// 1,000 chunks, and a second.
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

/// A usual size of a socket buffer, in bytes: 64 KiB.
const WINDOW: usize = 64 * 1024;

fn pick<'a, T>(random: &mut Random, choices: &'a [T]) -> &'a T {
    &choices[random.below(choices.len() as u64) as usize]
}
