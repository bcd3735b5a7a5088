//! The programs of README.md and of the guide: all compile, and all without `no_run` run.
//! `tests/api/guide.rs` checks that no page is left out.

macro_rules! pages {
    ($($(#[$condition:meta])* $name:ident $path:literal)*) => {
        $($(#[$condition])* #[doc = include_str!($path)] mod $name {})*
    };
}

pages! {
    readme "../README.md"
    async_beside_callbacks "../docs/guide/src/how-to/async-beside-callbacks.md"
    #[cfg(feature = "async")]
    async_libraries "../docs/guide/src/how-to/async.md"
    backend "../docs/guide/src/how-to/backend.md"
    backpressure "../docs/guide/src/how-to/backpressure.md"
    clients "../docs/guide/src/how-to/clients.md"
    cores "../docs/guide/src/how-to/cores.md"
    datagrams "../docs/guide/src/how-to/datagrams.md"
    debugging "../docs/guide/src/how-to/debugging.md"
    deferreds "../docs/guide/src/how-to/deferreds.md"
    #[cfg(feature = "logging")]
    deployment "../docs/guide/src/how-to/deployment.md"
    embedding "../docs/guide/src/how-to/embedding.md"
    endpoints "../docs/guide/src/how-to/endpoints.md"
    foreign_descriptors "../docs/guide/src/how-to/foreign-descriptors.md"
    #[cfg(feature = "logging")]
    logs "../docs/guide/src/how-to/logs.md"
    other_loops "../docs/guide/src/how-to/other-loops.md"
    policies "../docs/guide/src/how-to/policies.md"
    processes "../docs/guide/src/how-to/processes.md"
    servers "../docs/guide/src/how-to/servers.md"
    services "../docs/guide/src/how-to/services.md"
    snapshots "../docs/guide/src/how-to/snapshots.md"
    standard_io "../docs/guide/src/how-to/standard-io.md"
    testing "../docs/guide/src/how-to/testing.md"
    threads "../docs/guide/src/how-to/threads.md"
    timers "../docs/guide/src/how-to/timers.md"
    tls "../docs/guide/src/how-to/tls.md"
    programs "../docs/guide/src/from-twisted/programs.md"
    rust "../docs/guide/src/from-twisted/rust.md"
    tutorial_lines "../docs/guide/src/tutorial/2-lines.md"
}
