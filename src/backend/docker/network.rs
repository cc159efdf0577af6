//! The bridge that all handlers with network share, so that the engine's address pools suffice for any number.

use std::collections::HashMap;

use bollard::models::NetworkCreateRequest;
use serde::de::IgnoredAny;

use super::engine::Fault;
use super::{Inner, Network, labels};

/// The option that keeps containers on one bridge from reaching each other.
const NO_CROSS_TRAFFIC: &str = "com.docker.network.bridge.enable_icc";

/// Makes the shared network where it is needed and absent.
///
/// # Errors
/// [`Fault`].
pub async fn ensure(inner: &Inner) -> Result<(), Fault> {
    if inner.config.network != Network::Shared {
        return Ok(());
    }
    let name = inner.config.network_name();
    // Two that find it absent would make two of one name.
    let _one = inner.making.lock().await;
    match inner.ask::<IgnoredAny>(format!("/networks/{name}")).await {
        Err(fault) if fault.is(404) => {}
        other => return other.map(drop),
    }
    let config = NetworkCreateRequest {
        name,
        driver: Some("bridge".into()),
        options: Some(HashMap::from([(NO_CROSS_TRAFFIC.to_string(), "false".to_string())])),
        labels: Some(labels::of_instance(&inner.config)),
        ..Default::default()
    };
    inner.call(Box::pin(inner.engine.client.create_network(config))).await.map(drop)
}

/// Removes the shared network. One that is gone or still in use is no error.
///
/// # Errors
/// [`Fault`].
pub async fn remove(inner: &Inner) -> Result<(), Fault> {
    let name = inner.config.network_name();
    match inner.call(Box::pin(inner.engine.client.remove_network(&name))).await {
        Err(fault) if !fault.is(404) && !fault.is(403) => Err(fault),
        _ => Ok(()),
    }
}
