//! A server of callbacks inside GLib's main loop, as in a program with windows: a source of GLib
//! asks for something every 20 ms, and the reactor answers a client.

use std::cell::Cell;
use std::io::{Read, Write};
use std::rc::Rc;
use std::time::Duration;

use glib::{ControlFlow, MainLoop};
use ropewalk::interfaces::*;
use ropewalk::{ListenOptions, Reactor, Result, Transport};

/// Answers each line in capitals.
struct Capitals;

impl Protocol for Capitals {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        transport.write(&data.to_ascii_uppercase());
        Ok(())
    }
}

fn main() -> Result<()> {
    let main_loop = MainLoop::new(None, false);
    let reactor = Reactor::builder().signals(false).build()?;
    let port = reactor.listen_tcp("127.0.0.1:0".parse()?, &ListenOptions::new(), |_| Some(Capitals))?;
    let address = port.host().socket_addr().expect("a TCP port has one");

    let quitting = main_loop.clone();
    let _attached = ropewalk_hosting::glib_host::attach(&reactor, move |result| {
        println!("the reactor has stopped: {result:?}");
        quitting.quit();
    })?;

    // A client in a thread, with a blocking socket.
    let client = std::thread::spawn(move || -> std::io::Result<String> {
        let mut stream = std::net::TcpStream::connect(address)?;
        stream.write_all(b"hello from a thread")?;
        let mut answer = [0; 19];
        stream.read_exact(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    });

    // A source of GLib uses the reactor from outside of its turns.
    let (ticks, stopping, client) = (Rc::new(Cell::new(0)), reactor.clone(), Cell::new(Some(client)));
    glib::timeout_add_local(Duration::from_millis(20), move || {
        ticks.set(ticks.get() + 1);
        println!("tick {}", ticks.get());
        match client.take() {
            Some(client) if client.is_finished() => {
                println!("{:?}", client.join().expect("it does not panic"));
                stopping.stop().expect("the reactor runs");
                ControlFlow::Break
            }
            running => {
                client.set(running);
                ControlFlow::Continue
            }
        }
    });
    main_loop.run();
    Ok(())
}
