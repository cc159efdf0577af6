//! The protobuf messages of our services, field for field as in `proto/`.

use bytes::{BufMut, Bytes};

use super::frame;

/// The question of `TinyFaaS/Request`. The two strings are taken as bytes, so that they are not copied and that text
/// which is not UTF-8 gets a clear answer.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Data {
    /// The function's name.
    #[prost(bytes = "bytes", tag = "1")]
    pub function_identifier: Bytes,
    /// The body as text.
    #[prost(bytes = "bytes", tag = "2")]
    pub data: Bytes,
    /// The body as any bytes; where it is present, `data` is not looked at and the answer is [`Response::payload`].
    #[prost(bytes = "bytes", optional, tag = "3")]
    pub payload: Option<Bytes>,
}

/// The answer of `TinyFaaS/Request`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Response {
    /// The answer as text.
    #[prost(bytes = "bytes", tag = "1")]
    pub response: Bytes,
    /// The answer as any bytes.
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub payload: Option<Bytes>,
}

/// The question of `Health/Check` and `Health/Watch`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct HealthCheckRequest {
    /// Empty for the whole server, else a service's or a function's name.
    #[prost(string, tag = "1")]
    pub service: String,
}

/// The answer of `Health/Check` and `Health/Watch`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct HealthCheckResponse {
    /// How it is.
    #[prost(enumeration = "ServingStatus", tag = "1")]
    pub status: i32,
}

/// How a service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum ServingStatus {
    /// Not known.
    Unknown = 0,
    /// It takes calls.
    Serving = 1,
    /// It takes no calls now.
    NotServing = 2,
    /// There is no such service; `Watch` only.
    ServiceUnknown = 3,
}

/// A question to server reflection, v1 and v1alpha alike.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ServerReflectionRequest {
    /// Whom the caller thinks it is talking to.
    #[prost(string, tag = "1")]
    pub host: String,
    /// What it wants to know.
    #[prost(oneof = "ReflectionQuestion", tags = "3, 4, 5, 6, 7")]
    pub question: Option<ReflectionQuestion>,
}

/// What server reflection can be asked.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum ReflectionQuestion {
    /// The file of that name.
    #[prost(string, tag = "3")]
    FileByFilename(String),
    /// The file that defines that service, method or message.
    #[prost(string, tag = "4")]
    FileContainingSymbol(String),
    /// The file that extends a message.
    #[prost(message, tag = "5")]
    FileContainingExtension(ExtensionRequest),
    /// The extensions of that message.
    #[prost(string, tag = "6")]
    AllExtensionNumbersOfType(String),
    /// The services.
    #[prost(string, tag = "7")]
    ListServices(String),
}

/// Names an extension of a message.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ExtensionRequest {
    /// The message.
    #[prost(string, tag = "1")]
    pub containing_type: String,
    /// The extension's field number.
    #[prost(int32, tag = "2")]
    pub extension_number: i32,
}

/// An answer of server reflection.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ServerReflectionResponse {
    /// The `host` of the question.
    #[prost(string, tag = "1")]
    pub valid_host: String,
    /// The question.
    #[prost(message, optional, tag = "2")]
    pub original_request: Option<ServerReflectionRequest>,
    /// The answer.
    #[prost(oneof = "ReflectionAnswer", tags = "4, 5, 6, 7")]
    pub answer: Option<ReflectionAnswer>,
}

/// What server reflection can answer.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum ReflectionAnswer {
    /// Files.
    #[prost(message, tag = "4")]
    Files(FileDescriptorResponse),
    /// Numbers of extensions.
    #[prost(message, tag = "5")]
    ExtensionNumbers(ExtensionNumberResponse),
    /// Services.
    #[prost(message, tag = "6")]
    Services(ListServiceResponse),
    /// There is no such thing.
    #[prost(message, tag = "7")]
    Error(ErrorResponse),
}

/// Files, each an encoded `FileDescriptorProto`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct FileDescriptorResponse {
    /// The files.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub file_descriptor_proto: Vec<Vec<u8>>,
}

/// The extensions of a message.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ExtensionNumberResponse {
    /// The message.
    #[prost(string, tag = "1")]
    pub base_type_name: String,
    /// Their field numbers.
    #[prost(int32, repeated, tag = "2")]
    pub extension_number: Vec<i32>,
}

/// The services.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ListServiceResponse {
    /// One entry each.
    #[prost(message, repeated, tag = "1")]
    pub service: Vec<ServiceResponse>,
}

/// One service.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ServiceResponse {
    /// Its name with its package.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ErrorResponse {
    /// A gRPC status code.
    #[prost(int32, tag = "1")]
    pub error_code: i32,
    /// A line for a person.
    #[prost(string, tag = "2")]
    pub error_message: String,
}

/// Which field of [`Response`] carries an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// `response`, which has to be UTF-8.
    Text,
    /// `payload`.
    Bytes,
}

/// A framed [`Response`] built in place: the answer's body is appended, then the bytes in front of it are filled in, so
/// that it is neither moved nor copied.
#[derive(Debug)]
pub struct ResponseBuilder {
    buf: Vec<u8>,
}

impl ResponseBuilder {
    /// Room in front of the body: frame prefix, one byte of field key, up to five of length.
    const ROOM: usize = frame::PREFIX + 1 + 5;

    /// A builder with room for a body of `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        let mut buf = Vec::with_capacity(Self::ROOM + capacity);
        buf.resize(Self::ROOM, 0);
        Self { buf }
    }

    /// How many bytes of memory have to be [reserved](Self::reserve) so that `n` more bytes of body fit; 0 where they do
    /// already. Grows by doubling, so that many small pieces are not copied each time.
    pub fn missing(&self, n: usize) -> usize {
        let wanted = self.buf.len() + n;
        if wanted <= self.buf.capacity() { 0 } else { wanted.max(2 * self.buf.capacity()) - self.buf.capacity() }
    }

    /// Takes memory for `more` bytes than there are now.
    pub fn reserve(&mut self, more: usize) {
        self.buf.reserve_exact(self.buf.capacity() + more - self.buf.len());
    }

    /// Appends to the body.
    pub fn extend(&mut self, part: &[u8]) {
        self.buf.extend_from_slice(part);
    }

    /// The body so far.
    pub fn body(&self) -> &[u8] {
        self.buf.get(Self::ROOM..).unwrap_or_default()
    }

    /// The frame, ready to send. The body may be up to 4 GiB less 11 bytes: its owner keeps it far smaller.
    pub fn finish(mut self, field: Field) -> Bytes {
        let length = self.body().len();
        let mut head = Vec::with_capacity(Self::ROOM);
        head.put_slice(&[0; frame::PREFIX]);
        // An empty `response` is left out, as proto3 does; an empty `payload` is not, since its presence means something.
        if length > 0 || field == Field::Bytes {
            // Field number and wire type 2 (length-delimited).
            head.put_u8(if field == Field::Text { 1 << 3 | 2 } else { 2 << 3 | 2 });
            prost::encoding::encode_varint(length as u64, &mut head);
        }
        let message = u32::try_from(head.len() - frame::PREFIX + length).unwrap_or(u32::MAX);
        for (place, byte) in head.iter_mut().zip(frame::prefix(message)) {
            *place = byte;
        }
        let start = Self::ROOM - head.len();
        if let Some(place) = self.buf.get_mut(start..Self::ROOM) {
            place.copy_from_slice(&head);
        }
        Bytes::from(self.buf).slice(start..)
    }
}

/// `message` as a frame.
pub fn framed(message: &impl prost::Message) -> Bytes {
    let length = message.encoded_len();
    let mut buf = Vec::with_capacity(frame::PREFIX + length);
    buf.put_slice(&frame::prefix(u32::try_from(length).unwrap_or(u32::MAX)));
    message.encode_raw(&mut buf);
    Bytes::from(buf)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;

    #[test]
    fn the_question_of_an_old_stub_decodes() {
        let data = Data::decode(&b"\x0a\x04echo\x12\x02hi"[..]).unwrap();
        assert_eq!((&data.function_identifier[..], &data.data[..], data.payload), (&b"echo"[..], &b"hi"[..], None));
    }

    #[test]
    fn a_payload_is_told_from_none_even_when_it_is_empty() {
        assert_eq!(Data::decode(&b"\x1a\x00"[..]).unwrap().payload, Some(Bytes::new()));
        assert_eq!(Data::decode(&b""[..]).unwrap().payload, None);
    }

    #[test]
    fn unknown_fields_are_passed_over_and_broken_ones_refused() {
        assert_eq!(Data::decode(&b"\x22\x01x\x12\x01y"[..]).unwrap().data, "y");
        assert!(Data::decode(&b"\x0a\x05abc"[..]).is_err());
        assert!(Data::decode(&b"\x08\x01"[..]).is_err(), "a string field that comes as a number");
        assert!(Data::decode(&[0xff; 11][..]).is_err());
    }

    #[test]
    fn an_answer_built_in_place_is_what_prost_writes() {
        for size in [0, 1, 127, 128, 16_383, 16_384, 100_000] {
            let body = vec![b'x'; size];
            let mut text = ResponseBuilder::with_capacity(0);
            let mut bytes = ResponseBuilder::with_capacity(size);
            for piece in body.chunks(1000) {
                text.extend(piece);
                bytes.extend(piece);
            }
            assert_eq!(text.body(), body);
            let response = Bytes::from(body);
            let expected = Response { response: response.clone(), payload: None };
            assert_eq!(text.finish(Field::Text), framed(&expected), "{size}");
            let expected = Response { response: Bytes::new(), payload: Some(response) };
            assert_eq!(bytes.finish(Field::Bytes), framed(&expected), "{size}");
        }
    }
}
