//! `GET /metrics`: what a Prometheus wants to know, in its text format 0.0.4. Names are of-watchdog's where it has one.
//!
//! The answer is written into one lent buffer, block by block, and sent whenever that is full: it is never held whole, and
//! nothing is gathered before. Labels are the names of functions that are deployed and words that are ours: no stranger can
//! make another series.

use std::fmt::{self, Write};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::{Management, content_type};
use crate::backend::resident;
use crate::buffers::{Buffer, Buffers};
use crate::call::Protocol;
use crate::deploy::{Active, State};
use crate::dispatch::counts::{BUCKETS, CLASSES, Counts, Traffic};
use crate::http_server::{Pieces, Responder};
use crate::shutdown::Shutdown;

/// The media type of the format.
const TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is known of the server beside its functions.
#[derive(Debug, Clone)]
pub struct Facts {
    /// When it began.
    pub began: Instant,
    /// Where the buffer for an answer comes from.
    pub buffers: Buffers,
    /// Whether it is to stop.
    pub stopping: Shutdown,
    /// CoAP requests that came again.
    pub coap_repeated: Arc<AtomicU64>,
}

/// A family of samples: their name, their type and what they mean, and who writes them.
struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    samples: Samples,
}

enum Samples {
    /// Of the server.
    Server(fn(&mut Block<'_>, &str, &Management) -> fmt::Result),
    /// Of each function.
    Function(fn(&mut Block<'_>, &str, &Active) -> fmt::Result),
    /// Of what came by each protocol for a function.
    Traffic(fn(&mut Block<'_>, &str, &Labels<'_>, &Traffic) -> fmt::Result),
    /// Of one handler of a function after the other.
    Handlers(fn(&mut Block<'_>, &str, &Management, &Active, usize) -> fmt::Result),
}

/// Whose traffic it is.
struct Labels<'a> {
    function: &'a str,
    protocol: Protocol,
}

impl fmt::Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names of functions are letters and digits: nothing in them has to be escaped.
        write!(f, "function=\"{}\",protocol=\"{}\"", self.function, self.protocol.name())
    }
}

const FAMILIES: [Family; 15] = [
    Family {
        name: "http_requests_total",
        kind: "counter",
        help: "Calls that ended, by the class of their status.",
        samples: Samples::Traffic(|out, name, labels, traffic| {
            for (class, n) in CLASSES.iter().zip(traffic.answered()) {
                writeln!(out, "{name}{{{labels},code=\"{class}\"}} {n}")?;
            }
            Ok(())
        }),
    },
    Family {
        name: "http_request_duration_seconds",
        kind: "histogram",
        help: "How long calls took, waiting included.",
        samples: Samples::Traffic(durations),
    },
    Family {
        name: "http_requests_in_flight",
        kind: "gauge",
        help: "Calls under way, waiting ones included.",
        samples: Samples::Traffic(|out, name, labels, traffic| {
            writeln!(out, "{name}{{{labels}}} {}", traffic.in_flight())
        }),
    },
    Family {
        name: "tinyfaas_request_bytes_total",
        kind: "counter",
        help: "Bytes of bodies that were sent to handlers.",
        samples: Samples::Traffic(|out, name, labels, traffic| {
            writeln!(out, "{name}{{{labels}}} {}", traffic.bytes_in())
        }),
    },
    Family {
        name: "tinyfaas_response_bytes_total",
        kind: "counter",
        help: "Bytes of bodies that handlers answered.",
        samples: Samples::Traffic(|out, name, labels, traffic| {
            writeln!(out, "{name}{{{labels}}} {}", traffic.bytes_out())
        }),
    },
    Family {
        name: "tinyfaas_waiting_requests",
        kind: "gauge",
        help: "Calls that wait for a handler.",
        samples: Samples::Function(|out, name, active| {
            writeln!(out, "{name}{{function=\"{}\"}} {}", active.deployment().name, active.function().waiting())
        }),
    },
    Family {
        name: "tinyfaas_handlers",
        kind: "gauge",
        help: "Handlers by their state.",
        samples: Samples::Function(handlers),
    },
    Family {
        name: "tinyfaas_handler_restarts_total",
        kind: "counter",
        help: "Handlers of this version that were started again.",
        samples: Samples::Function(|out, name, active| {
            let mut all = 0;
            active.each_handler(&mut |_, restarts, _| all += restarts);
            writeln!(out, "{name}{{function=\"{}\"}} {all}", active.deployment().name)
        }),
    },
    Family {
        name: "tinyfaas_handler_memory_bytes",
        kind: "gauge",
        help: "Resident memory of a handler's processes.",
        samples: Samples::Handlers(|out, name, management, active, place| match memory(management, active, place) {
            Some(bytes) => {
                let function = &active.deployment().name;
                writeln!(out, "{name}{{function=\"{function}\",handler=\"{}\"}} {bytes}", place + 1)
            }
            None => Ok(()),
        }),
    },
    Family {
        name: "tinyfaas_unknown_function_requests_total",
        kind: "counter",
        help: "Calls of functions that there are not.",
        samples: Samples::Server(|out, name, management| {
            for protocol in Protocol::ALL {
                let n = management.deployer.dispatch().unknown(protocol);
                writeln!(out, "{name}{{protocol=\"{}\"}} {n}", protocol.name())?;
            }
            Ok(())
        }),
    },
    Family {
        name: "tinyfaas_coap_duplicates_total",
        kind: "counter",
        help: "CoAP requests that came again and ran nothing.",
        samples: Samples::Server(|out, name, management| {
            writeln!(out, "{name} {}", management.facts.coap_repeated.load(Ordering::Relaxed))
        }),
    },
    Family {
        name: "tinyfaas_functions",
        kind: "gauge",
        help: "Functions that are deployed.",
        samples: Samples::Server(|out, name, management| {
            writeln!(out, "{name} {}", management.deployer.dispatch().len())
        }),
    },
    Family {
        name: "tinyfaas_build_info",
        kind: "gauge",
        help: "What runs here.",
        samples: Samples::Server(|out, name, management| {
            let (version, arch) = (env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
            let backend = management.deployer.backend().name();
            writeln!(out, "{name}{{version=\"{version}\",arch=\"{arch}\",backend=\"{backend}\"}} 1")
        }),
    },
    Family {
        name: "tinyfaas_uptime_seconds",
        kind: "gauge",
        help: "Time since the start. Not the time of the start: a board without a clock of its own does not know that.",
        samples: Samples::Server(|out, name, management| {
            writeln!(out, "{name} {:.3}", management.facts.began.elapsed().as_secs_f64())
        }),
    },
    Family {
        name: "process_resident_memory_bytes",
        kind: "gauge",
        help: "Resident memory of the server.",
        samples: Samples::Server(|out, name, _| match resident::of_process("self") {
            Some(bytes) => writeln!(out, "{name} {bytes}"),
            None => Ok(()),
        }),
    },
];

fn durations(out: &mut Block<'_>, name: &str, labels: &Labels<'_>, traffic: &Traffic) -> fmt::Result {
    let bounds = BUCKETS.iter().map(|(bound, _)| *bound).chain(["+Inf"]);
    let mut all = 0;
    for (bound, n) in bounds.zip(traffic.took()) {
        all += n;
        writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {all}")?;
    }
    let took = traffic.took_together();
    writeln!(out, "{name}_sum{{{labels}}} {}.{:06}", took.as_secs(), took.subsec_micros())?;
    writeln!(out, "{name}_count{{{labels}}} {all}")
}

fn handlers(out: &mut Block<'_>, name: &str, active: &Active) -> fmt::Result {
    for state in State::OF_HANDLERS {
        let mut n = 0;
        active.each_handler(&mut |is, _, _| n += u32::from(is == state));
        writeln!(out, "{name}{{function=\"{}\",state=\"{}\"}} {n}", active.deployment().name, state.name())?;
    }
    Ok(())
}

fn memory(management: &Management, active: &Active, place: usize) -> Option<u64> {
    let (mut n, mut found) = (0, None);
    active.each_handler(&mut |_, _, handler| {
        if n == place {
            found = handler.map(|handler| management.deployer.backend().resident(handler.id()));
        }
        n += 1;
    });
    found?
}

impl Management {
    /// Answers a scraper.
    pub(super) async fn metrics(&self, respond: Responder<'_>) -> io::Result<()> {
        let pieces = respond.pieces(200, &content_type(TYPE), None);
        let mut page = Page { pieces, buffer: self.facts.buffers.take(), filled: 0 };
        for Family { name, kind, help, samples } in &FAMILIES {
            page.put(&|out| write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n")).await?;
            if let Samples::Server(write) = samples {
                page.put(&|out| write(out, name, self)).await?;
                continue;
            }
            for active in self.deployer.all() {
                let function = active.deployment().name.as_str();
                match samples {
                    Samples::Server(_) => {}
                    Samples::Function(write) => page.put(&|out| write(out, name, &active)).await?,
                    Samples::Traffic(write) => {
                        let counts: Option<Arc<Counts>> = self.deployer.dispatch().counts(function);
                        page.put(&|out| {
                            let each = |protocol| Some((protocol, counts.as_ref()?.of(protocol)?));
                            for (protocol, traffic) in Protocol::ALL.into_iter().filter_map(each) {
                                write(out, name, &Labels { function, protocol }, traffic)?;
                            }
                            Ok(())
                        })
                        .await?;
                    }
                    Samples::Handlers(write) => {
                        for place in 0..active.deployment().threads {
                            page.put(&|out| write(out, name, self, &active, place)).await?;
                        }
                    }
                }
            }
        }
        page.finish().await
    }
}

/// The answer on its way.
struct Page<'c> {
    pieces: Pieces<'c>,
    buffer: Buffer,
    filled: usize,
}

/// Lines that go into the buffer together, or not at all.
struct Block<'b> {
    room: &'b mut [u8],
    filled: usize,
}

impl Page<'_> {
    /// Adds a block; where it has no place, what is there is sent before. The largest one is that of durations, under half of
    /// a buffer.
    async fn put(&mut self, write: &(dyn Fn(&mut Block<'_>) -> fmt::Result + Sync)) -> io::Result<()> {
        if !self.try_put(write) {
            self.flush().await?;
            self.try_put(write);
        }
        Ok(())
    }

    fn try_put(&mut self, write: &dyn Fn(&mut Block<'_>) -> fmt::Result) -> bool {
        let mut block = Block { room: self.buffer.get_mut(self.filled..).unwrap_or_default(), filled: 0 };
        let whole = write(&mut block).is_ok();
        if whole {
            self.filled += block.filled;
        }
        whole
    }

    async fn flush(&mut self) -> io::Result<()> {
        let filled = std::mem::take(&mut self.filled);
        self.pieces.send(self.buffer.get(..filled).unwrap_or_default()).await
    }

    async fn finish(mut self) -> io::Result<()> {
        self.flush().await?;
        self.pieces.finish().await
    }
}

impl Write for Block<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.filled + text.len();
        self.room.get_mut(self.filled..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.filled = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffers;
    use crate::function::Name;

    #[test]
    fn the_largest_block_has_a_place_in_an_empty_buffer() {
        let function = "x".repeat(Name::MAX);
        let mut room = [0; buffers::SIZE];
        let mut block = Block { room: &mut room, filled: 0 };
        for protocol in Protocol::ALL {
            let labels = Labels { function: &function, protocol };
            durations(&mut block, "http_request_duration_seconds", &labels, &Traffic::default()).unwrap();
        }
        // With twenty digits in each of the places that are 0 here.
        assert!(block.filled + 3 * 10 * 20 < buffers::SIZE, "{}", block.filled);
    }

    #[test]
    fn a_block_that_does_not_fit_is_an_error_and_not_a_cut_line() {
        let mut room = [0; 4];
        let mut block = Block { room: &mut room, filled: 0 };
        assert!(block.write_str("abc").is_ok());
        assert!(block.write_str("de").is_err());
        assert_eq!(block.filled, 3);
    }
}
