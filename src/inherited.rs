//! Sockets that a service manager opened for us: sd_listen_fds(3). Ports below 1024 need no rights of ours then.

use std::env;
use std::net::{TcpListener, UdpSocket};

use listenfd::ListenFd;

/// What a socket may be named, each once: by `FileDescriptorName=` of its unit.
const NAMES: [&str; 4] = ["http", "coap", "grpc", "management"];

/// Sockets by the names of the doors they are for.
pub struct Inherited {
    sockets: ListenFd,
    names: Vec<String>,
}

impl Inherited {
    /// What `LISTEN_FDS`, `LISTEN_PID` and `LISTEN_FDNAMES` tell of. To be called once, before there are other threads.
    ///
    /// # Errors
    /// One line, where a socket has no name, or none of ours.
    pub fn from_environment() -> Result<Self, String> {
        let sockets = ListenFd::from_env();
        let names = match sockets.len() {
            0 => Vec::new(),
            count => names(&env::var("LISTEN_FDNAMES").unwrap_or_default(), count)?,
        };
        Ok(Self { sockets, names })
    }

    /// The listening socket for that door.
    ///
    /// # Errors
    /// One line, where it is no TCP socket.
    pub fn tcp(&mut self, door: &str) -> Result<Option<TcpListener>, String> {
        let Some(number) = self.number(door) else { return Ok(None) };
        self.sockets
            .take_tcp_listener(number)
            .map_err(|e| format!("{door}: the inherited socket: {e}: use ListenStream="))
    }

    /// The socket for that door.
    ///
    /// # Errors
    /// One line, where it is no UDP socket.
    pub fn udp(&mut self, door: &str) -> Result<Option<UdpSocket>, String> {
        let Some(number) = self.number(door) else { return Ok(None) };
        self.sockets
            .take_udp_socket(number)
            .map_err(|e| format!("{door}: the inherited socket: {e}: use ListenDatagram="))
    }

    /// Has to be asked for a door that is turned off: nobody would answer whoever connects.
    ///
    /// # Errors
    /// One line, where there is a socket for it.
    pub fn none_for(&self, door: &str) -> Result<(), String> {
        match self.number(door) {
            Some(_) => Err(format!(
                "--{door} is off, but a socket is there for it: disable the .socket unit, or leave out the off"
            )),
            None => Ok(()),
        }
    }

    fn number(&self, door: &str) -> Option<usize> {
        self.names.iter().position(|name| name == door)
    }
}

fn names(list: &str, count: usize) -> Result<Vec<String>, String> {
    let names: Vec<String> = list.split(':').map(str::to_owned).collect();
    if names.len() != count {
        return Err(format!(
            "LISTEN_FDNAMES: {list:?} does not name {count} sockets: use FileDescriptorName= in each .socket unit"
        ));
    }
    for (number, name) in names.iter().enumerate() {
        if !NAMES.contains(&name.as_str()) {
            return Err(format!("LISTEN_FDNAMES: {name:?} is no door: use one of {}", NAMES.join(", ")));
        }
        if names.iter().take(number).any(|earlier| earlier == name) {
            return Err(format!("LISTEN_FDNAMES: {name:?} is there twice: one socket for each door"));
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_socket_has_the_name_of_a_door() {
        assert_eq!(names("http:coap", 2).unwrap(), ["http", "coap"]);
        assert!(names("http", 2).unwrap_err().contains("does not name 2 sockets"));
        assert!(names("", 1).unwrap_err().contains("is no door"));
        assert!(names("tinyfaas.socket", 1).unwrap_err().contains("use one of http, coap, grpc, management"));
        assert!(names("http:http", 2).unwrap_err().contains("is there twice"));
    }
}
