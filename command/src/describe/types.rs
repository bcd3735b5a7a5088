//! The types of endpoints and their arguments, in words. The names are checked against those that
//! the engine takes (`tests` of `mod.rs`).

/// A type of endpoint.
#[derive(Debug)]
pub(super) struct Type {
    pub(super) kind: &'static str,
    pub(super) summary: &'static str,
    /// Arguments that may be given by position, in their order.
    pub(super) positional: &'static [Argument],
    /// Arguments that are given by name only: lists of them.
    pub(super) by_name: &'static [&'static [Argument]],
}

impl Type {
    /// Returns all arguments, those with a position first.
    pub(super) fn arguments(&self) -> impl Iterator<Item = &Argument> {
        self.positional.iter().chain(self.by_name.iter().copied().flatten())
    }
}

/// An argument of a type.
#[derive(Debug)]
pub(super) struct Argument {
    pub(super) name: &'static str,
    pub(super) meaning: &'static str,
    pub(super) default: Default,
    /// The value is the path of a file or a folder.
    pub(super) is_path: bool,
}

/// The value of an argument that is not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Default {
    Required,
    Value(&'static str),
    /// There is no value. The text says what holds then.
    Without(&'static str),
}

const fn required(name: &'static str, meaning: &'static str) -> Argument {
    Argument { name, meaning, default: Default::Required, is_path: false }
}

const fn value(name: &'static str, meaning: &'static str, default: &'static str) -> Argument {
    Argument { name, meaning, default: Default::Value(default), is_path: false }
}

const fn without(name: &'static str, meaning: &'static str, then: &'static str) -> Argument {
    Argument { name, meaning, default: Default::Without(then), is_path: false }
}

const fn path(argument: Argument) -> Argument {
    Argument { is_path: true, ..argument }
}

const PORT: Argument = required("port", "the port to listen on; 0 lets the system choose");
const HOST: Argument = required("host", "the host to connect to: a name or an address");
const PEER_PORT: Argument = required("port", "the port to connect to");
const INTERFACE: Argument = value("interface", "the address to listen on", "0.0.0.0 (all IPv4 interfaces)");
const INTERFACE_6: Argument = value("interface", "the address to listen on", ":: (all interfaces)");
const BACKLOG: Argument = without("backlog", "connections that may wait to be accepted", "the system's limit");
const TIMEOUT: Argument = value("timeout", "seconds to wait for a connection", "30");
const BIND_ADDRESS: Argument = without("bindAddress", "the local address to connect from", "the system chooses");
const PROTOCOLS: Argument = without("protocols", "names for ALPN, with commas between them", "no negotiation");
const FINGERPRINTS: Argument =
    without("fingerprints", "SHA-256 fingerprints of the only trusted certificates", "authorities are trusted");
const NO_DELAY: Argument = value("noDelay", "1: small writes leave at once (Nagle's algorithm is off)", "1");

/// Options that several types share, in the order of the engine's own lists.
const BUFFERS: &[Argument] = &[
    without("receiveBuffer", "bytes of the system's receive buffer", "the system's default"),
    without("sendBuffer", "bytes of the system's send buffer", "the system's default"),
];
const QUEUE: &[Argument] = &[
    without("queueLimit", "bytes that may wait for a peer that does not read", "no limit"),
    value("atQueueLimit", "at that limit: abort, pause or tell", "abort"),
];
const REUSE: &[Argument] = &[
    value("reuseAddress", "1: a port of closed connections can be used again", "1"),
    value("reusePort", "1: several sockets may share the port", "0"),
];
const POLICIES: &[Argument] = &[
    without("maxConnections", "connections at a time", "no limit"),
    without("maxPerPeer", "connections of one address at a time", "no limit"),
    without("peerPrefix", "bits of an address that count for maxPerPeer", "32 of IPv4, 64 of IPv6"),
    without("acceptRate", "connections accepted in a second", "no limit"),
    value("whenFull", "at that limit or rate: pause the port, or shed connections", "pause"),
    without("idleTimeout", "seconds without a byte in either direction", "no limit"),
    without("receiveTimeout", "seconds without a received byte", "no limit"),
    without("firstBytes", "seconds until the first byte", "no limit"),
    without("lifetime", "seconds of a connection", "no limit"),
    without("rate", "bytes a second of a connection, in each direction", "no limit"),
    without("receiveRate", "received bytes a second of a connection", "the rate"),
    without("sendRate", "sent bytes a second of a connection", "the rate"),
    without("totalRate", "bytes a second of all connections, in each direction", "no limit"),
    without("totalReceiveRate", "received bytes a second of all connections", "the total rate"),
    without("totalSendRate", "sent bytes a second of all connections", "the total rate"),
    without("trafficLog", "text or hex: bytes go to the log at level DEBUG", "no log"),
];
const NO_DELAY_ONLY: &[Argument] = &[NO_DELAY];
const IPV6_ONLY: &[Argument] = &[without("ipv6Only", "1: IPv6 alone, 0: IPv4 too", "the system's setting")];

/// The types of server endpoints.
pub(super) const SERVERS: &[Type] = &[
    Type {
        kind: "tcp",
        summary: "listens on a TCP port, over IPv4 unless the interface is an IPv6 address",
        positional: &[PORT, INTERFACE, BACKLOG],
        by_name: &[NO_DELAY_ONLY, IPV6_ONLY, REUSE, BUFFERS, QUEUE, POLICIES],
    },
    Type {
        kind: "tcp6",
        summary: "listens on a TCP port over IPv6",
        positional: &[PORT, BACKLOG, INTERFACE_6],
        by_name: &[NO_DELAY_ONLY, IPV6_ONLY, REUSE, BUFFERS, QUEUE, POLICIES],
    },
    Type {
        kind: "unix",
        summary: "listens on a UNIX socket",
        positional: &[
            required("address", "the path of the socket, or a name after a NUL"),
            value("mode", "the permissions of the file, in octal", "666"),
            BACKLOG,
            value("lockfile", "1: a lock beside the file tells if its process lives", "1"),
        ],
        by_name: &[BUFFERS, QUEUE, POLICIES],
    },
    Type {
        kind: "fd",
        summary: "listens on a socket that the process has inherited, by its number",
        positional: &[
            required("number", "the number of the descriptor"),
            without("domain", "the expected family: INET, INET6 or UNIX", "any family"),
        ],
        by_name: &[NO_DELAY_ONLY, QUEUE, POLICIES],
    },
    Type {
        kind: "systemd",
        summary: "listens on a socket that a service manager has passed",
        positional: &[
            without("domain", "the expected family: INET, INET6 or UNIX", "any family"),
            without("index", "the place among the passed sockets, from 0", "the name counts"),
            without("name", "the name of the socket", "the index counts"),
        ],
        by_name: &[NO_DELAY_ONLY, QUEUE, POLICIES],
    },
    Type {
        kind: "stdio",
        summary: "serves the standard input and output of the process, as one connection",
        positional: &[],
        by_name: &[],
    },
    Type {
        kind: "haproxy",
        summary: "reads a PROXY header in front of each connection of the description behind it",
        positional: &[],
        by_name: &[&[value("headerTimeout", "seconds to wait for the header", "10")]],
    },
    Type {
        kind: "ssl",
        summary: "listens on a TCP port, over TLS with one certificate",
        positional: &[
            PORT,
            path(value("privateKey", "the file of the private key, in PEM", "server.pem")),
            path(without("certKey", "the file of the certificate, in PEM", "the file of the key")),
            value("sslmethod", "the versions of TLS: TLS_METHOD or TLSv1_2_METHOD", "TLS_METHOD (1.2 and 1.3)"),
            INTERFACE,
            BACKLOG,
            path(without("extraCertChain", "a file of certificates between this one and its authority", "none")),
            without("dhParameters", "for Twisted's descriptions; no value is taken", "none"),
        ],
        by_name: &[&[PROTOCOLS], NO_DELAY_ONLY, IPV6_ONLY, REUSE, BUFFERS, QUEUE, POLICIES],
    },
    Type {
        kind: "tls",
        summary: "listens on a TCP port, over TLS with the certificate for the requested name",
        positional: &[
            path(required("path", "a folder of .pem files, each named after its host")),
            value("port", "the port to listen on", "443"),
            BACKLOG,
            INTERFACE_6,
        ],
        by_name: &[&[PROTOCOLS], NO_DELAY_ONLY, IPV6_ONLY, REUSE, BUFFERS, QUEUE, POLICIES],
    },
];

/// The types of client endpoints.
pub(super) const CLIENTS: &[Type] = &[
    Type {
        kind: "tcp",
        summary: "connects to a host, on the first of its addresses that answers",
        positional: &[HOST, PEER_PORT],
        by_name: &[&[TIMEOUT, BIND_ADDRESS], NO_DELAY_ONLY, REUSE, BUFFERS, QUEUE],
    },
    Type {
        kind: "unix",
        summary: "connects to a UNIX socket",
        positional: &[required("path", "the path of the socket, or a name after a NUL")],
        by_name: &[&[TIMEOUT, value("lockfile", "1: fails unless the lock's process lives", "0")], BUFFERS, QUEUE],
    },
    Type {
        kind: "process",
        summary: "starts a program, and connects to its standard input and output",
        positional: &[required("program", "the name or the path of the program")],
        by_name: &[
            &[
                without("directory", "the working directory of the program", "that of this process"),
                without("uid", "the number of its user", "that of this process"),
                without("gid", "the number of its group", "that of this process"),
                value("clearEnv", "1: the program inherits no variables", "0"),
                value("stderr", "its standard error: log, drop or inherit", "log"),
                without("env.NAME", "a variable of its environment", "none but the inherited ones"),
            ],
            QUEUE,
        ],
    },
    Type {
        kind: "haproxy",
        summary: "sends a PROXY header in front of each connection of the description behind it",
        positional: &[],
        by_name: &[&[value("version", "the version of the header: 1 or 2", "2")]],
    },
    Type {
        kind: "ssl",
        summary: "connects to a host over TLS",
        positional: &[HOST, PEER_PORT],
        by_name: &[
            &[
                TIMEOUT,
                BIND_ADDRESS,
                path(without("privateKey", "the file of this end's private key, in PEM", "no identity")),
                path(without("certKey", "the file of this end's certificate, in PEM", "no identity")),
                path(without("caCertsDir", "a folder of the trusted authorities", "those of the platform")),
                without("hostname", "the name in the peer's certificate", "the host"),
                FINGERPRINTS,
                PROTOCOLS,
            ],
            NO_DELAY_ONLY,
            REUSE,
            BUFFERS,
            QUEUE,
        ],
    },
    Type {
        kind: "tls",
        summary: "connects to a host over TLS",
        positional: &[
            HOST,
            PEER_PORT,
            TIMEOUT,
            BIND_ADDRESS,
            path(without("certificate", "the file of this end's certificate, in PEM", "no identity")),
            path(without("privateKey", "the file of this end's private key, in PEM", "the certificate's file")),
            path(without("trustRoots", "a folder of the trusted authorities", "those of the platform")),
            without("endpoint", "a description of the way to the host", "TCP"),
        ],
        by_name: &[&[FINGERPRINTS, PROTOCOLS], NO_DELAY_ONLY, REUSE, BUFFERS, QUEUE],
    },
];
