//! What the query of `PUT /functions/NAME` asks for: an upload's fields, without JSON.

use super::values::{LIMITS, Limit, LimitFields, List, Scalar};
use super::{Defaults, Deploy, Fields, MAX_AUTH, cut};
use crate::function::Runtime;
use crate::wire::http1::percent_decode;

/// A deployment whose archive is not there yet.
#[derive(Debug)]
pub struct Put {
    /// What runs it, where that was said.
    pub runtime: Option<Runtime>,
    deploy: Deploy,
}

impl Put {
    /// The folder of the archive that is the function.
    pub fn subfolder(&self) -> &str {
        &self.deploy.subfolder
    }

    /// Whether an image is deployed, without an archive.
    pub fn is_image(&self) -> bool {
        self.deploy.image.is_some()
    }

    /// The deployment, with what runs it.
    pub fn deploy(self, runtime: Runtime) -> Deploy {
        Deploy { runtime, ..self.deploy }
    }
}

/// Reads the query of `PUT /functions/NAME`, with an upload's fields and those of its `limits`; `auth` may be repeated. Its
/// `envs` come apart, since they may be secrets and queries are in logs. Without `threads` there is one handler.
///
/// # Errors
/// As [`upload`]; also for a name that is unknown or there twice.
pub fn put(name: &str, query: &str, envs: Vec<String>, defaults: &Defaults) -> Result<Put, String> {
    let mut fields = Fields { name: Some(Scalar::Text(name.to_owned())), ..Fields::default() };
    let mut limits = Box::<LimitFields>::default();
    let mut auth = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decode = |text| percent_decode(text).ok_or_else(|| format!("{:?} has a broken percent escape", cut(text)));
        let (key, value) = (decode(key)?, Scalar::Text(decode(value)?));
        let limit = LIMITS.iter().zip(&mut limits.by_name).find(|(name, _)| **name == key).map(|(_, place)| place);
        let place = match (limit, key.as_str()) {
            (Some(limit), _) => limit,
            (_, "env") => &mut fields.env,
            (_, "image") => &mut fields.image,
            (_, "threads") => &mut fields.threads,
            (_, "idle") => &mut fields.idle,
            (_, "network") => &mut fields.network,
            (_, "subfolder_path") => &mut fields.subfolder_path,
            (_, "auth") if auth.len() <= MAX_AUTH => {
                auth.push(value);
                continue;
            }
            (_, "auth") => continue,
            _ => {
                let known = "env, image, threads, idle, network, subfolder_path, auth";
                return Err(format!("{:?} is unknown: there are {known}, {}", cut(&key), LIMITS.join(", ")));
            }
        };
        if place.replace(value).is_some() {
            return Err(format!("{} is there twice", cut(&key)));
        }
    }
    fields.threads = Some(match &fields.threads {
        None => Scalar::Number(1),
        Some(Scalar::Text(text)) => text.parse().map_or(Scalar::Other, Scalar::Number),
        Some(_) => Scalar::Other,
    });
    fields.network = fields.network.map(|value| match &value {
        Scalar::Text(text) => text.parse().map_or(Scalar::Other, Scalar::Flag),
        _ => Scalar::Other,
    });
    let said = fields.env.is_some() || fields.is_image();
    let runtime = if said { Some(fields.runtime()?) } else { None };
    // Another takes its place where none was said.
    fields.env = Some(Scalar::Text(runtime.unwrap_or(Runtime::BINARY).name().to_owned()));
    fields.limits = Some(Limit::Fields(limits));
    fields.auth = Some(List::Texts(auth));
    fields.envs = Some(List::Texts(envs.into_iter().map(Scalar::Text).collect()));
    Ok(Put { runtime, deploy: fields.deploy(defaults)? })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::function::{Limits, Origin};
    use crate::upload_request::tests::defaults;

    #[test]
    fn a_query_says_what_an_upload_may_say() {
        let put = |query: &str| put("f", query, vec!["A=b c".into()], &defaults());
        let plain = put("").unwrap();
        assert_eq!((plain.runtime, plain.subfolder()), (None, ""));
        let deploy = plain.deploy(Runtime::NODEJS);
        assert_eq!((deploy.name.as_str(), deploy.runtime, deploy.threads), ("f", Runtime::NODEJS, 1));
        assert_eq!((&deploy.envs[..], &deploy.limits), (&["A=b c".to_owned()][..], &defaults().limits));
        let query = "env=python3&threads=3&memory=64Mi&timeout=5s&queue=0&idle=5m&subfolder_path=a%2Fb";
        let full = put(query).unwrap();
        assert_eq!((full.runtime, full.subfolder()), (Some(Runtime::PYTHON3), "a/b"));
        let deploy = full.deploy(Runtime::PYTHON3);
        assert_eq!((deploy.threads, deploy.idle, deploy.origin), (3, Some(Duration::from_secs(300)), Origin::Upload));
        let limits = Limits { memory: 64 << 20, timeout: Duration::from_secs(5), queue: 0, ..defaults().limits };
        assert_eq!(deploy.limits, limits);
        let digest = "ab".repeat(32);
        let auth = put(&format!("auth={digest}&auth={digest}")).unwrap().deploy(Runtime::BINARY).auth;
        assert_eq!(auth.len(), 2);
        let network = |query: &str| put(query).unwrap().deploy(Runtime::BINARY).network;
        assert_eq!((network(""), network("network=true"), network("network=false")), (true, true, false));
    }

    #[test]
    fn a_query_that_is_wrong_says_what_would_be_right() {
        let why = |query: &str| put("f", query, Vec::new(), &defaults()).unwrap_err();
        for (query, expected) in [
            ("thread=1", "\"thread\" is unknown: there are env, image, threads"),
            ("threads=0", "threads has to be a whole number"),
            ("threads=x", "threads has to be a whole number"),
            ("env=rust", "use python3, nodejs, binary"),
            ("env=", "use python3, nodejs, binary"),
            ("env=binary&env=binary", "env is there twice"),
            ("memory=1", "limits.memory"),
            ("idle=%zz", "broken percent escape"),
            ("network=no", "network has to be true or false"),
            ("auth=no", "auth[0]"),
            ("subfolder_path=..", "subfolder_path"),
        ] {
            assert!(why(query).contains(expected), "{query}: {}", why(query));
        }
        let many = "auth=0&".repeat(100);
        assert!(why(&many).contains("more than 64"), "{}", why(&many));
        assert!(put("f", "", vec!["no".into()], &defaults()).unwrap_err().contains("envs[0] has no ="));
        assert!(put("a b", "", Vec::new(), &defaults()).unwrap_err().contains("name"));
    }
}
