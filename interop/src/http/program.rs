//! [`start`]: the program of the example `http`.

use std::time::Duration;

use ropewalk::deferred::gather_results;
use ropewalk::endpoints::server_from_string;
use ropewalk::{Deferred, Phase, Reactor, Result, SystemEvent};

use super::{Files, HttpLimits, HttpServer};

/// Time that connections have to finish their requests when the program stops. Less than the time
/// limit of a trigger, 60 s.
const DRAIN_TIME: Duration = Duration::from_secs(30);

/// Serves the files below a folder on endpoints: the folder and their descriptions are the
/// arguments. The addresses are printed once all of them listen, a line each.
///
/// The stop of the reactor, by SIGTERM or SIGINT, drains the server. The Deferred fires with the
/// stop.
///
/// # Errors
/// No folder, a description that is malformed, or a port that can't be had.
pub fn start(reactor: &Reactor, arguments: &[String]) -> Result<Deferred<()>> {
    let [root, descriptions @ ..] = arguments else { ropewalk::bail!("usage: http FOLDER [DESCRIPTION ..]") };
    let report = |line: &dyn std::fmt::Display| eprintln!("{line}");
    let server = HttpServer::new(reactor, HttpLimits::default(), report);
    let files = Files::new(reactor, root, report)?;
    let default = ["tcp:8080".to_owned()];
    let descriptions = if descriptions.is_empty() { &default } else { descriptions };
    let listen = |description: &String| {
        let files = files.clone();
        let answer = move |request| {
            let files = files.clone();
            async move { files.answer(request).await }
        };
        Ok(server.listen(&server_from_string(reactor, description)?, answer))
    };
    let listening = descriptions.iter().map(listen).collect::<Result<Vec<_>>>()?;
    reactor.add_system_event_trigger(Phase::Before, SystemEvent::Shutdown, move || {
        let open = server.open_connections();
        println!("stopping: {open} connections are open");
        server.drain(DRAIN_TIME).add_callback(|aborted| println!("stopped: {aborted} were aborted"))
    });
    let stopped = reactor.when_stopped();
    Ok(gather_results(listening).add_callback(move |ports| {
        for port in ports {
            println!("listening on {}", port.host());
        }
        stopped
    }))
}
