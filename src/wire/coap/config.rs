//! Every time and bound of a server endpoint.

use super::Millis;

/// Times and bounds. All memory that strangers can make a [`super::Server`] hold follows from them.
#[derive(Debug, Clone)]
pub struct Config {
    /// How long a confirmable request waits for its piggybacked answer before an empty acknowledgement leaves. Below the two
    /// seconds after which a client repeats itself (RFC 7252 §5.2.1), by a long round trip.
    pub ack_delay: Millis,
    /// ACK_TIMEOUT: the least time before a confirmable message of ours is sent again (RFC 7252 §4.8).
    pub ack_timeout: Millis,
    /// MAX_RETRANSMIT: how often it is sent again before it is given up.
    pub max_retransmit: u8,
    /// EXCHANGE_LIFETIME: how long a confirmable request's message id is remembered (RFC 7252 §4.8.2).
    pub exchange_lifetime: Millis,
    /// NON_LIFETIME: the same for a non-confirmable one.
    pub non_lifetime: Millis,
    /// Requests at work and answers not yet acknowledged, together. When reached: 5.03 with Max-Age. Each costs about 200
    /// bytes and its bodies; the bodies count against the budget.
    pub exchanges: usize,
    /// Requests remembered after their answer, so that a repeated one does not run the function again. When reached: the one
    /// answered first is forgotten. Each costs about 50 bytes.
    pub duplicates: usize,
    /// Bytes of answers remembered for repeated requests, rounded up to a power of two. When reached: the oldest answers go,
    /// their requests are still known. Taken as it is needed.
    pub replies: usize,
    /// Endpoints of which we know the next message id, the rate, and whether their address was proved. When reached: one that
    /// was quiet goes. Each costs about 50 bytes.
    pub endpoints: usize,
    /// Requests a second that one endpoint may make, with one second's worth at once; 0 for no limit. Above: 4.29 (RFC 8516).
    pub rate: u32,
    /// Requests whose body is still arriving in blocks. When reached: one that stalled goes, else 5.03.
    pub uploads: usize,
    /// Bodies kept for clients that fetch them block by block. When reached: the oldest goes.
    pub results: usize,
    /// Longest body of a request or an answer in bytes. Above: 4.13 with Size1, or 5.00.
    pub max_body: usize,
    /// How long a body that is fetched or arrives in blocks is kept since its last block.
    pub transfer_lifetime: Millis,
    /// After how long without a block an arriving body may be given up for another one.
    pub transfer_stall: Millis,
    /// The same of one that did not get beyond its first block: a forged datagram begins a body, and never goes on.
    pub transfer_start: Millis,
    /// Size exponent of our blocks: 6 is 1024 bytes, which fits a link of 1280.
    pub block_szx: u8,
    /// Longest datagram that is understood, in bytes. Above: 4.13.
    pub max_datagram: usize,
    /// Clients that observe a function. When reached: a plain answer (RFC 7641 §4.1).
    pub observers: usize,
    /// Bytes of the states that observers were told, all together: they are kept for as long as somebody observes. When
    /// reached: a plain answer, or a 5.03 with Max-Age that ends an observation.
    pub observed: usize,
    /// How often an observed function runs.
    pub observe_interval: Millis,
    /// Whether answers over three times the request's size go only to addresses that were proved (RFC 9175 §2.3).
    pub echo: bool,
    /// Longest wait before a multicast request is answered (RFC 7252 §8.2).
    pub leisure: Millis,
    /// Answers to multicast requests that wait for their time. When reached: no answer, which that RFC allows.
    pub delayed: usize,
    /// Max-Age of a 5.03 or 4.29 in seconds: when to try again.
    pub retry_after: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ack_delay: 500,
            ack_timeout: 2_000,
            max_retransmit: 4,
            exchange_lifetime: 247_000,
            non_lifetime: 145_000,
            exchanges: 256,
            duplicates: 2048,
            replies: 64 * 1024,
            endpoints: 1024,
            rate: 1000,
            uploads: 16,
            results: 32,
            max_body: 64 * 1024,
            transfer_lifetime: 247_000,
            transfer_stall: 93_000,
            transfer_start: 10_000,
            block_szx: 6,
            max_datagram: 2048,
            observers: 64,
            observed: 512 * 1024,
            observe_interval: 10_000,
            echo: false,
            leisure: 5_000,
            delayed: 16,
            retry_after: 5,
        }
    }
}
