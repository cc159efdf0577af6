//! tonic against a front door with the functions that tests/it/grpc_peers.rs installs: `tonic-client HOST:PORT`.

use std::time::Duration;

use http::uri::PathAndQuery;
use prost::Message as _;
use prost_types::FileDescriptorProto;
use tonic::client::Grpc;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

/// The messages as the public descriptor has them.
#[derive(Clone, PartialEq, prost::Message)]
struct Data {
    #[prost(string, tag = "1")]
    function_identifier: String,
    #[prost(string, tag = "2")]
    data: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Answer {
    #[prost(string, tag = "1")]
    response: String,
}

fn question(function: &str, data: &str) -> Request<Data> {
    Request::new(Data { function_identifier: function.into(), data: data.into() })
}

async fn call(mut client: Grpc<Channel>, question: Request<Data>) -> Result<Response<Answer>, Status> {
    client.ready().await.map_err(|e| Status::unknown(e.to_string()))?;
    let path = PathAndQuery::from_static("/openfogstack.tinyfaas.tinyfaas.TinyFaaS/Request");
    client.unary(question, path, ProstCodec::<Data, Answer>::default()).await
}

/// Reflection v1 with the stubs that tonic's makers generated: every kind of question in one stream.
async fn check_reflection(channel: Channel) {
    const SERVICE: &str = "openfogstack.tinyfaas.tinyfaas.TinyFaaS";
    let questions = [
        MessageRequest::ListServices(String::new()),
        MessageRequest::FileContainingSymbol(SERVICE.into()),
        MessageRequest::FileByFilename("tinyfaas.proto".into()),
        MessageRequest::FileContainingSymbol("no.Symbol".into()),
        MessageRequest::FileByFilename("no.proto".into()),
        MessageRequest::AllExtensionNumbersOfType("no.Type".into()),
    ];
    let questions =
        questions.map(|question| ServerReflectionRequest { host: "board".into(), message_request: Some(question) });
    let asked = questions.clone();
    let stream = tonic::codegen::tokio_stream::iter(questions);
    let mut answers = ServerReflectionClient::new(channel).server_reflection_info(stream).await.unwrap().into_inner();
    for question in asked {
        let answer = answers.message().await.unwrap().expect("an answer to each question");
        assert_eq!((answer.valid_host.as_str(), answer.original_request), ("board", Some(question.clone())));
        match (question.message_request.unwrap(), answer.message_response.unwrap()) {
            (MessageRequest::ListServices(_), MessageResponse::ListServicesResponse(list)) => {
                let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
                assert!(
                    names.contains(&SERVICE) && names.contains(&"grpc.reflection.v1.ServerReflection"),
                    "{names:?}"
                );
                assert_eq!(names.len(), 4, "{names:?}");
            }
            (_, MessageResponse::FileDescriptorResponse(files)) => {
                let [file] = &files.file_descriptor_proto[..] else { panic!("{files:?}") };
                let file = FileDescriptorProto::decode(&file[..]).unwrap();
                assert_eq!((file.name(), file.package()), ("tinyfaas.proto", "openfogstack.tinyfaas.tinyfaas"));
                assert_eq!(file.service[0].method[0].input_type(), ".openfogstack.tinyfaas.tinyfaas.Data");
            }
            (
                MessageRequest::FileContainingSymbol(name)
                | MessageRequest::FileByFilename(name)
                | MessageRequest::AllExtensionNumbersOfType(name),
                MessageResponse::ErrorResponse(error),
            ) if name.starts_with("no.") => {
                assert!(error.error_code == Code::NotFound as i32 && error.error_message.contains(&name), "{error:?}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(answers.message().await.unwrap(), None);
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let address = std::env::args().nth(1).expect("HOST:PORT");
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let client = Grpc::new(channel.clone());

    let long = "x".repeat(500_000);
    for text in ["", "caf\u{e9}", &long] {
        assert_eq!(call(client.clone(), question("echo", text)).await.unwrap().into_inner().response, text);
    }
    let gzip = client.clone().send_compressed(CompressionEncoding::Gzip);
    assert_eq!(call(gzip, question("echo", &long)).await.unwrap().into_inner().response, long);

    let status = call(client.clone(), question("nobody", "")).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
    let status = call(client.clone(), question("fails", "")).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Internal, "na\u{ef}ve 100%\nboom"));
    assert_eq!(status.metadata().get("x-why").unwrap(), "because");

    let mut late = question("slow", "");
    late.set_timeout(Duration::from_millis(200));
    let status = call(client.clone(), late).await.unwrap_err();
    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status:?}");

    let mut marked = question("headers", "");
    marked.metadata_mut().insert_bin("trace-bin", MetadataValue::from_bytes(&[0, 1, 2]));
    let answer = call(client.clone(), marked).await.unwrap();
    assert_eq!(answer.metadata().get_bin("blob-bin").unwrap().to_bytes().unwrap()[..], [0, 1, 2]);
    let head = answer.into_inner().response;
    assert!(head.contains("trace-bin: AAEC") && head.contains("user-agent: tonic"), "{head}");

    let calls: Vec<_> =
        (0..200).map(|n| tokio::spawn(call(client.clone(), question("echo", &n.to_string())))).collect();
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap().unwrap().into_inner().response, n.to_string());
    }
    check_reflection(channel).await;
    println!("all well");
}
