//! What server reflection tells: our `.proto` files as `FileDescriptorProto` messages, built here field for field.
//!
//! `protoc` is not needed for it; a test with another make of client compares these with what `protoc` makes of `proto/`.

use prost::Message as _;

/// A `.proto` file that the server can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum File {
    /// `tinyfaas.proto`.
    TinyFaas,
    /// `health.proto`.
    Health,
    /// `reflection.proto`.
    Reflection,
    /// `reflection_v1alpha.proto`.
    ReflectionAlpha,
}

/// The package and service that calls go to.
pub const TINYFAAS: &str = "openfogstack.tinyfaas.tinyfaas.TinyFaaS";
/// The health service.
pub const HEALTH: &str = "grpc.health.v1.Health";
/// Server reflection.
pub const REFLECTION: &str = "grpc.reflection.v1.ServerReflection";
/// Server reflection under its older name, which `grpcurl` and others may ask for.
pub const REFLECTION_ALPHA: &str = "grpc.reflection.v1alpha.ServerReflection";

impl File {
    /// Every file.
    pub const ALL: [Self; 4] = [Self::TinyFaas, Self::Health, Self::Reflection, Self::ReflectionAlpha];

    /// The service that the file defines.
    pub const fn service(self) -> &'static str {
        match self {
            Self::TinyFaas => TINYFAAS,
            Self::Health => HEALTH,
            Self::Reflection => REFLECTION,
            Self::ReflectionAlpha => REFLECTION_ALPHA,
        }
    }

    /// The file of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|file| file.name() == name)
    }

    /// The file that defines a service, method, message or enumeration, by its full name.
    pub fn with_symbol(symbol: &str) -> Option<Self> {
        let symbol = symbol.strip_prefix('.').unwrap_or(symbol);
        Self::ALL.into_iter().find(|file| file.defines(symbol))
    }

    /// The encoded `FileDescriptorProto`.
    pub fn encode(self) -> Vec<u8> {
        self.descriptor().encode_to_vec()
    }

    const fn name(self) -> &'static str {
        match self {
            Self::TinyFaas => "tinyfaas.proto",
            Self::Health => "health.proto",
            Self::Reflection => "reflection.proto",
            Self::ReflectionAlpha => "reflection_v1alpha.proto",
        }
    }

    fn package(self) -> &'static str {
        self.service().rsplit_once('.').map_or("", |(package, _)| package)
    }

    /// Whether the file defines `symbol`, a full name without a dot in front.
    fn defines(self, symbol: &str) -> bool {
        let Some(local) = symbol.strip_prefix(self.package()).and_then(|rest| rest.strip_prefix('.')) else {
            return false;
        };
        let (first, second) = local.split_once('.').map_or((local, None), |(first, second)| (first, Some(second)));
        let file = self.descriptor();
        let service = file.service.iter().find(|s| s.name == first);
        let message = file.message_type.iter().find(|m| m.name == first);
        match second {
            None => service.is_some() || message.is_some(),
            Some(second) => {
                service.is_some_and(|s| s.method.iter().any(|m| m.name == second))
                    || message.is_some_and(|m| m.enum_type.iter().any(|e| e.name == second))
                    || message.is_some_and(|m| m.field.iter().any(|f| f.name == second))
            }
        }
    }

    fn descriptor(self) -> FileDescriptorProto {
        let (method, message_type) = match self {
            Self::TinyFaas => tinyfaas(),
            Self::Health => health(),
            Self::Reflection | Self::ReflectionAlpha => reflection(),
        };
        let package = self.package();
        let service = self.service().rsplit_once('.').map_or("", |(_, service)| service);
        let mut file = FileDescriptorProto {
            name: self.name().into(),
            package: package.into(),
            message_type,
            service: vec![ServiceDescriptorProto { name: service.into(), method }],
            syntax: "proto3".into(),
        };
        // A type is named in full, with a dot in front.
        let qualify = |name: &mut String| name.insert_str(0, &format!(".{package}."));
        for method in file.service.iter_mut().flat_map(|s| &mut s.method) {
            qualify(&mut method.input_type);
            qualify(&mut method.output_type);
        }
        for field in file.message_type.iter_mut().flat_map(|m| &mut m.field) {
            if let Some(name) = &mut field.type_name {
                qualify(name);
            }
        }
        file
    }
}

fn tinyfaas() -> (Vec<MethodDescriptorProto>, Vec<DescriptorProto>) {
    let payload = |number| FieldDescriptorProto {
        oneof_index: Some(0),
        proto3_optional: Some(true),
        ..field("payload", number, Type::Bytes)
    };
    let data = DescriptorProto {
        oneof_decl: oneof("_payload"),
        ..message(
            "Data",
            vec![field("functionIdentifier", 1, Type::String), field("data", 2, Type::String), payload(3)],
        )
    };
    let response = DescriptorProto {
        oneof_decl: oneof("_payload"),
        ..message("Response", vec![field("response", 1, Type::String), payload(2)])
    };
    (vec![method("Request", "Data", "Response")], vec![data, response])
}

fn health() -> (Vec<MethodDescriptorProto>, Vec<DescriptorProto>) {
    let (question, answer) = ("HealthCheckRequest", "HealthCheckResponse");
    let watch = MethodDescriptorProto { server_streaming: Some(true), ..method("Watch", question, answer) };
    let status = FieldDescriptorProto {
        type_name: Some("HealthCheckResponse.ServingStatus".into()),
        ..field("status", 1, Type::Enum)
    };
    let values = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
    let value = (0..).zip(values).map(|(number, name)| EnumValueDescriptorProto { name: name.into(), number });
    let serving = EnumDescriptorProto { name: "ServingStatus".into(), value: value.collect() };
    let messages = vec![
        message(question, vec![field("service", 1, Type::String)]),
        DescriptorProto { enum_type: vec![serving], ..message(answer, vec![status]) },
    ];
    (vec![method("Check", question, answer), watch], messages)
}

fn reflection() -> (Vec<MethodDescriptorProto>, Vec<DescriptorProto>) {
    let (question, answer) = ("ServerReflectionRequest", "ServerReflectionResponse");
    let of = |name: &str, number, kind: &str| FieldDescriptorProto {
        type_name: Some(kind.into()),
        ..field(name, number, Type::Message)
    };
    let one = |field| FieldDescriptorProto { oneof_index: Some(0), ..field };
    let many = |field| FieldDescriptorProto { label: LABEL_REPEATED, ..field };
    let info = MethodDescriptorProto {
        client_streaming: Some(true),
        server_streaming: Some(true),
        ..method("ServerReflectionInfo", question, answer)
    };
    let request = vec![
        field("host", 1, Type::String),
        one(field("file_by_filename", 3, Type::String)),
        one(field("file_containing_symbol", 4, Type::String)),
        one(of("file_containing_extension", 5, "ExtensionRequest")),
        one(field("all_extension_numbers_of_type", 6, Type::String)),
        one(field("list_services", 7, Type::String)),
    ];
    let extension = vec![field("containing_type", 1, Type::String), field("extension_number", 2, Type::Int32)];
    let response = vec![
        field("valid_host", 1, Type::String),
        of("original_request", 2, question),
        one(of("file_descriptor_response", 4, "FileDescriptorResponse")),
        one(of("all_extension_numbers_response", 5, "ExtensionNumberResponse")),
        one(of("list_services_response", 6, "ListServiceResponse")),
        one(of("error_response", 7, "ErrorResponse")),
    ];
    let numbers = vec![field("base_type_name", 1, Type::String), many(field("extension_number", 2, Type::Int32))];
    let error = vec![field("error_code", 1, Type::Int32), field("error_message", 2, Type::String)];
    let messages = vec![
        DescriptorProto { oneof_decl: oneof("message_request"), ..message(question, request) },
        message("ExtensionRequest", extension),
        DescriptorProto { oneof_decl: oneof("message_response"), ..message(answer, response) },
        message("FileDescriptorResponse", vec![many(field("file_descriptor_proto", 1, Type::Bytes))]),
        message("ExtensionNumberResponse", numbers),
        message("ListServiceResponse", vec![many(of("service", 1, "ServiceResponse"))]),
        message("ServiceResponse", vec![field("name", 1, Type::String)]),
        message("ErrorResponse", error),
    ];
    (vec![info], messages)
}

fn method(name: &str, input: &str, output: &str) -> MethodDescriptorProto {
    MethodDescriptorProto {
        name: name.into(),
        input_type: input.into(),
        output_type: output.into(),
        client_streaming: None,
        server_streaming: None,
    }
}

fn message(name: &str, field: Vec<FieldDescriptorProto>) -> DescriptorProto {
    DescriptorProto { name: name.into(), field, enum_type: Vec::new(), oneof_decl: Vec::new() }
}

fn oneof(name: &str) -> Vec<OneofDescriptorProto> {
    vec![OneofDescriptorProto { name: name.into() }]
}

fn field(name: &str, number: i32, kind: Type) -> FieldDescriptorProto {
    FieldDescriptorProto {
        name: name.into(),
        number,
        label: LABEL_OPTIONAL,
        kind: kind as i32,
        type_name: None,
        oneof_index: None,
        json_name: json_name(name),
        proto3_optional: None,
    }
}

/// The name in JSON: each underscore goes and the letter after it becomes a capital.
fn json_name(name: &str) -> String {
    let mut capital = false;
    let mut json = String::new();
    for c in name.chars() {
        if c != '_' {
            json.push(if capital { c.to_ascii_uppercase() } else { c });
        }
        capital = c == '_';
    }
    json
}

/// Values of `FieldDescriptorProto.Label`.
const LABEL_OPTIONAL: i32 = 1;
const LABEL_REPEATED: i32 = 3;

/// Values of `FieldDescriptorProto.Type` that we use.
#[derive(Debug, Clone, Copy)]
enum Type {
    Int32 = 5,
    String = 9,
    Message = 11,
    Bytes = 12,
    Enum = 14,
}

// The public `descriptor.proto`, as far as we use it. It is proto2: what is set is written, even where it is empty or 0.

#[derive(Clone, PartialEq, prost::Message)]
struct FileDescriptorProto {
    #[prost(string, required, tag = "1")]
    name: String,
    #[prost(string, required, tag = "2")]
    package: String,
    #[prost(message, repeated, tag = "4")]
    message_type: Vec<DescriptorProto>,
    #[prost(message, repeated, tag = "6")]
    service: Vec<ServiceDescriptorProto>,
    #[prost(string, required, tag = "12")]
    syntax: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DescriptorProto {
    #[prost(string, required, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    field: Vec<FieldDescriptorProto>,
    #[prost(message, repeated, tag = "4")]
    enum_type: Vec<EnumDescriptorProto>,
    #[prost(message, repeated, tag = "8")]
    oneof_decl: Vec<OneofDescriptorProto>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct FieldDescriptorProto {
    #[prost(string, required, tag = "1")]
    name: String,
    #[prost(int32, required, tag = "3")]
    number: i32,
    #[prost(int32, required, tag = "4")]
    label: i32,
    #[prost(int32, required, tag = "5")]
    kind: i32,
    #[prost(string, optional, tag = "6")]
    type_name: Option<String>,
    #[prost(int32, optional, tag = "9")]
    oneof_index: Option<i32>,
    #[prost(string, required, tag = "10")]
    json_name: String,
    #[prost(bool, optional, tag = "17")]
    proto3_optional: Option<bool>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct OneofDescriptorProto {
    #[prost(string, required, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct EnumDescriptorProto {
    #[prost(string, required, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    value: Vec<EnumValueDescriptorProto>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct EnumValueDescriptorProto {
    #[prost(string, required, tag = "1")]
    name: String,
    #[prost(int32, required, tag = "2")]
    number: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ServiceDescriptorProto {
    #[prost(string, required, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    method: Vec<MethodDescriptorProto>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MethodDescriptorProto {
    #[prost(string, required, tag = "1")]
    name: String,
    #[prost(string, required, tag = "2")]
    input_type: String,
    #[prost(string, required, tag = "3")]
    output_type: String,
    #[prost(bool, optional, tag = "5")]
    client_streaming: Option<bool>,
    #[prost(bool, optional, tag = "6")]
    server_streaming: Option<bool>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_by_any_symbol_that_it_defines() {
        for (symbol, file) in [
            (TINYFAAS, Some(File::TinyFaas)),
            ("openfogstack.tinyfaas.tinyfaas.TinyFaaS.Request", Some(File::TinyFaas)),
            (".openfogstack.tinyfaas.tinyfaas.Data", Some(File::TinyFaas)),
            ("openfogstack.tinyfaas.tinyfaas.Data.payload", Some(File::TinyFaas)),
            ("grpc.health.v1.HealthCheckResponse.ServingStatus", Some(File::Health)),
            (REFLECTION, Some(File::Reflection)),
            (REFLECTION_ALPHA, Some(File::ReflectionAlpha)),
            ("grpc.reflection.v1alpha.ErrorResponse", Some(File::ReflectionAlpha)),
            ("grpc.reflection.v1", None),
            ("grpc.health.v1.Nothing", None),
            ("openfogstack.tinyfaas.tinyfaas.TinyFaaS.Request.More", None),
            ("", None),
        ] {
            assert_eq!(File::with_symbol(symbol), file, "{symbol}");
        }
    }

    #[test]
    fn a_file_is_found_by_its_name() {
        assert_eq!(File::by_name("health.proto"), Some(File::Health));
        assert_eq!(File::by_name("none.proto"), None);
    }

    #[test]
    fn types_are_named_in_full() {
        let file = File::Health.descriptor();
        assert_eq!(file.service[0].method[0].input_type, ".grpc.health.v1.HealthCheckRequest");
        let status = &file.message_type[1].field[0];
        assert_eq!(status.type_name.as_deref(), Some(".grpc.health.v1.HealthCheckResponse.ServingStatus"));
    }
}
