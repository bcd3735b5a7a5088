//! hyper on both ends of rough networks: HTTP/1 and HTTP/2, with and without faults.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ropewalk::Result;
use ropewalk::streams::ByteStream;
use ropewalk::testing::{Conditions, Network};
use ropewalk_interop::http::HttpLimits;

use super::simulation::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Number of seeds. One in three has windows and pieces that may be a byte.
const SEEDS: u64 = 24;

/// A rough network, with the number of bytes that it carries in a reasonable time.
fn network(seed: u64) -> (Network, usize) {
    let rough = Conditions::rough(seed);
    if seed.is_multiple_of(3) {
        return (Network::with_conditions(seed, rough), 200);
    }
    let conditions = rough.window(20_000).segment(1_460).chunk(4_096).bandwidth(None);
    (Network::with_conditions(seed, conditions), 50_000)
}

/// Limits that no network here reaches.
fn patient() -> HttpLimits {
    let mut limits = HttpLimits::default();
    (limits.header, limits.idle, limits.stall, limits.finish) = (DAY, DAY, DAY, DAY);
    limits
}

/// Starts three clients with requests of several sizes. Their results come into the list.
fn start_clients(simulated: &Simulated, most: usize, is_http2: bool) -> Rc<RefCell<Vec<Result<Vec<Asked>>>>> {
    let done = Rc::new(RefCell::new(Vec::new()));
    for sizes in [vec![1, 0, most], vec![most / 2, most / 10, 7], vec![most, 2]] {
        let (client, done) = (&simulated.client, Rc::clone(&done));
        let asked = client.spawn(ask_all(client.clone(), is_http2, sizes, |_| ()));
        drop(asked.add_both(move |results| done.borrow_mut().push(results)));
    }
    done
}

/// Every request is answered, with every byte, whatever the network does to the pieces.
#[test]
fn every_answer_comes_whole() {
    for seed in 0..SEEDS {
        for is_http2 in [false, true] {
            let (network, most) = network(seed);
            let simulated = Simulated::new(network, patient());
            let done = start_clients(&simulated, most, is_http2);
            simulated.network.run_until(DAY, || done.borrow().len() == 3).unwrap();
            for results in done.borrow().iter() {
                let results = results.as_ref().unwrap();
                let is_whole = results.iter().all(|asked| matches!(asked, Ok(true)));
                assert!(is_whole, "seed {seed}, HTTP/2: {is_http2}: {results:?}");
            }
            end(&simulated, seed);
            let failures = simulated.failures();
            assert!(failures.is_empty(), "seed {seed}, HTTP/2: {is_http2}: {failures:?}");
        }
    }
}

/// Faults in the middle: a network that is cut for a while, a client that resets its connection, a
/// server that drains. An answer comes whole or fails, and no connection is left behind.
#[test]
fn faults_cut_no_answer_short_unseen() {
    let (mut whole, mut failed) = (0, 0);
    for seed in 0..SEEDS {
        for is_http2 in [false, true] {
            let (network, most) = network(seed);
            let simulated = Simulated::new(network, patient());
            let done = start_clients(&simulated, most, is_http2);
            let transport = Rc::new(RefCell::new(None));
            let place = Rc::clone(&transport);
            let connected = move |stream: &ByteStream| *place.borrow_mut() = Some(stream.transport().clone());
            let client = &simulated.client;
            let asked = client.spawn(ask_all(client.clone(), is_http2, vec![most, most], connected));
            let fourth = Rc::clone(&done);
            drop(asked.add_both(move |results| fourth.borrow_mut().push(results)));

            // The moment of the fault differs from seed to seed, from the connect to the end.
            simulated.run_for(Duration::from_millis(1 << (seed % 12)));
            match seed % 4 {
                0 => {
                    simulated.network.partition(SERVER, CLIENT);
                    simulated.run_for(Duration::from_secs(5));
                    simulated.network.heal(SERVER, CLIENT);
                }
                1 | 2 => {
                    let transport = transport.borrow_mut().take();
                    transport.into_iter().for_each(|transport| transport.abort_connection());
                }
                _ => drop(simulated.http.drain(DAY)),
            }
            let ended = simulated.network.run_until(DAY, || done.borrow().len() == 4);
            ended.unwrap_or_else(|error| panic!("seed {seed}, HTTP/2: {is_http2}: {error}"));
            for asked in done.borrow().iter().flatten().flatten() {
                match asked {
                    Ok(true) => whole += 1,
                    Ok(false) => panic!("seed {seed}, HTTP/2: {is_http2}: an answer was cut short"),
                    Err(_) => failed += 1,
                }
            }
            end(&simulated, seed);
        }
    }
    assert!(whole > 100 && failed > 10, "{whole} were whole, {failed} failed");
}

/// Drains the server, and checks that no socket is left.
fn end(simulated: &Simulated, seed: u64) {
    let drained = simulated.http.drain(DAY);
    simulated.network.run_until(2 * DAY, || drained.is_called()).unwrap();
    simulated.run_for(Duration::from_secs(600));
    assert_eq!(simulated.network.open_sockets(&simulated.server), 0, "seed {seed}");
    assert_eq!(simulated.network.open_sockets(&simulated.client), 0, "seed {seed}");
}
