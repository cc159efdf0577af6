//! Server reflection, v1 and v1alpha: which services there are and how their messages look.

use http::HeaderMap;
use prost::Message;

use super::calls::before;
use super::question::Question;
use super::stream::{Answer, Asked, Gone};
use crate::wire::grpc::descriptor::File;
use crate::wire::grpc::message::{
    ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse, ListServiceResponse, ReflectionAnswer,
    ReflectionQuestion, ServerReflectionRequest, ServerReflectionResponse, ServiceResponse, framed,
};
use crate::wire::grpc::status::{Code, Status};

/// Answers `ServerReflectionInfo`: each question in turn, until the caller has no more.
pub(super) async fn info(asked: Asked, mut question: Question, answer: Answer) -> Result<(), Gone> {
    let mut sending = answer.begin(HeaderMap::new())?;
    loop {
        let next = Box::pin(before(asked.deadline, Box::pin(question.next())));
        let decoded = match sending.unless_gone(next).await? {
            Ok(None) => break,
            Ok(Some(message)) => ServerReflectionRequest::decode(message)
                .map_err(|e| Status::new(Code::Internal, format!("the message is not a ServerReflectionRequest: {e}"))),
            Err(status) => Err(status),
        };
        match decoded {
            Ok(request) => sending.message(framed(&respond(request)), None).await?,
            Err(status) => {
                sending.end(&status);
                return Ok(());
            }
        }
    }
    sending.end(&Status::new(Code::Ok, ""));
    Ok(())
}

fn respond(request: ServerReflectionRequest) -> ServerReflectionResponse {
    let answer = match &request.question {
        None => error(Code::InvalidArgument, "the question is empty: ask for one of the five"),
        Some(ReflectionQuestion::ListServices(_)) => {
            let service = File::ALL.map(|file| ServiceResponse { name: file.service().into() }).into();
            ReflectionAnswer::Services(ListServiceResponse { service })
        }
        Some(ReflectionQuestion::FileByFilename(name)) => show(File::by_name(name), "file", name),
        Some(ReflectionQuestion::FileContainingSymbol(name)) => show(File::with_symbol(name), "symbol", name),
        Some(ReflectionQuestion::FileContainingExtension(of)) => show(None, "extension of", &of.containing_type),
        Some(ReflectionQuestion::AllExtensionNumbersOfType(name)) => match File::with_symbol(name) {
            Some(_) => ReflectionAnswer::ExtensionNumbers(ExtensionNumberResponse {
                base_type_name: name.clone(),
                extension_number: Vec::new(),
            }),
            None => show(None, "type", name),
        },
    };
    let valid_host = request.host.clone();
    ServerReflectionResponse { valid_host, original_request: Some(request), answer: Some(answer) }
}

fn show(file: Option<File>, kind: &str, name: &str) -> ReflectionAnswer {
    match file {
        Some(file) => ReflectionAnswer::Files(FileDescriptorResponse { file_descriptor_proto: vec![file.encode()] }),
        None => {
            let shown: String = name.chars().take(80).collect();
            error(Code::NotFound, &format!("no {kind} {shown:?} here"))
        }
    }
}

fn error(code: Code, text: &str) -> ReflectionAnswer {
    ReflectionAnswer::Error(ErrorResponse { error_code: code as i32, error_message: text.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(question: ReflectionQuestion) -> ReflectionAnswer {
        let request = ServerReflectionRequest { host: "h".into(), question: Some(question) };
        let response = respond(request.clone());
        assert_eq!((response.valid_host.as_str(), response.original_request), ("h", Some(request)));
        response.answer.unwrap()
    }

    #[test]
    fn all_services_are_listed() {
        let ReflectionAnswer::Services(list) = ask(ReflectionQuestion::ListServices(String::new())) else { panic!() };
        let names: Vec<_> = list.service.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "openfogstack.tinyfaas.tinyfaas.TinyFaaS",
                "grpc.health.v1.Health",
                "grpc.reflection.v1.ServerReflection",
                "grpc.reflection.v1alpha.ServerReflection"
            ]
        );
    }

    #[test]
    fn what_is_not_there_is_an_error_in_the_answer() {
        for question in [
            ReflectionQuestion::FileByFilename("x.proto".into()),
            ReflectionQuestion::FileContainingSymbol("x.Y".into()),
            ReflectionQuestion::AllExtensionNumbersOfType("x.Y".into()),
        ] {
            let ReflectionAnswer::Error(error) = ask(question.clone()) else { panic!("{question:?}") };
            assert_eq!(error.error_code, 5, "{question:?}");
        }
        let answer = respond(ServerReflectionRequest::default()).answer;
        assert!(matches!(answer, Some(ReflectionAnswer::Error(ErrorResponse { error_code: 3, .. }))), "{answer:?}");
    }

    #[test]
    fn a_type_without_extensions_has_none() {
        let data = "openfogstack.tinyfaas.tinyfaas.Data";
        let answer = ask(ReflectionQuestion::AllExtensionNumbersOfType(data.into()));
        let ReflectionAnswer::ExtensionNumbers(numbers) = answer else { panic!("{answer:?}") };
        assert_eq!((numbers.base_type_name.as_str(), numbers.extension_number.len()), (data, 0));
    }
}
