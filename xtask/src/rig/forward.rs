//! Ports on the host's loopback that lead into a namespace.
//!
//! The page is opened in the user's browser, which lives on the host; the edge lives in a namespace. A connection
//! to such a port is carried on from the viewers' namespace, so a browser's packets pass the filter like anybody's.

use std::fs::File;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::network::namespace_path;

/// Carries connections to `127.0.0.1:port` on to `target`, as seen from `namespace`, until the process ends.
pub(crate) fn forward(port: u16, namespace: &str, target: SocketAddr) -> Result<(), String> {
    let listener = TcpListener::bind(("127.0.0.1", port))
        .map_err(|error| format!("cannot listen on 127.0.0.1:{port}: {error} (is another one running?)"))?;
    let namespace = namespace_path(namespace);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let namespace = namespace.clone();
            // A connection that cannot be carried on ends, as it would without us between.
            thread::spawn(move || carry(&client, &namespace, target));
        }
    });
    Ok(())
}

fn carry(client: &TcpStream, namespace: &PathBuf, target: SocketAddr) -> io::Result<()> {
    // Only this thread moves; the socket that it opens stays in the namespace for good.
    move_into_link_name_space(rustix::fd::AsFd::as_fd(&File::open(namespace)?), Some(LinkNameSpaceType::Network))?;
    let server = TcpStream::connect(target)?;
    for stream in [client, &server] {
        stream.set_nodelay(true)?;
    }
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    let up = thread::spawn(move || {
        let copied = io::copy(&mut from_client, &mut to_server);
        to_server.shutdown(Shutdown::Write).and(copied.map(|_| ()))
    });
    let copied = io::copy(&mut &server, &mut &*client);
    // Both directions are over: whatever is left of either stream has nowhere to go.
    client.shutdown(Shutdown::Both)?;
    server.shutdown(Shutdown::Both)?;
    up.join().map_err(|_| io::Error::other("the other direction panicked"))??;
    copied.map(|_| ())
}
