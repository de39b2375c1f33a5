//! Writing to the API server: the only place that does, but for the lease.
//!
//! Every write needs the permit of the leader at the moment it begins, and ends, one way or the other, before another
//! operator can have that permit.

use kube::api::{
    Api, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, ValidationDirective,
};
use kube::core::ApiResource;
use kube::{Client, Error};
use serde_json::Value;
use thiserror::Error;
use tokio::time::timeout;

use crate::kinds::Kind;
use crate::leader::{Leadership, WRITE_TIMEOUT};
use crate::object::{FIELD_MANAGER, Object};

/// Owner of the fields of status.
const STATUS_MANAGER: &str = "sluice-operator-status";

#[derive(Debug, Error)]
pub enum WriteError {
    #[error("another operator writes")]
    NotLeading,
    /// The same write would be refused again.
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Failed(String),
}

/// Who may write, and how.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    leadership: Leadership,
}

impl Writer {
    pub fn new(client: Client, leadership: Leadership) -> Self {
        Self { client, leadership }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn may_write(&self) -> bool {
        self.leadership.may_write()
    }

    pub fn api(&self, kind: Kind, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &kind.resource())
    }

    /// What is there, by asking.
    pub async fn get(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
    ) -> Result<Option<DynamicObject>, WriteError> {
        let api = self.api(kind, namespace);
        bounded(api.get_opt(name)).await
    }

    /// Makes the fields of an object what they should be.
    pub async fn apply(
        &self,
        namespace: &str,
        object: &Object,
    ) -> Result<DynamicObject, WriteError> {
        self.permit()?;
        let how = PatchParams {
            field_validation: Some(ValidationDirective::Strict),
            ..PatchParams::apply(FIELD_MANAGER).force()
        };
        let api = self.api(object.kind, namespace);
        bounded(api.patch(&object.name, &how, &Patch::Apply(&object.body))).await
    }

    /// Changes an object that others own as well.
    pub async fn merge(
        &self,
        resource: &ApiResource,
        namespace: &str,
        name: &str,
        patch: &Value,
    ) -> Result<(), WriteError> {
        self.permit()?;
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), namespace, resource);
        let how = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        match bounded(api.patch(name, &how, &Patch::Merge(patch))).await {
            Ok(_) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// Deletes this very object, and none that has taken its name.
    pub async fn delete(&self, kind: Kind, object: &DynamicObject) -> Result<(), WriteError> {
        self.permit()?;
        let metadata = &object.metadata;
        let how = DeleteParams {
            preconditions: Some(Preconditions {
                uid: metadata.uid.clone(),
                resource_version: None,
            }),
            ..DeleteParams::background()
        };
        let api = self.api(kind, metadata.namespace.as_deref().unwrap_or_default());
        let name = metadata.name.as_deref().unwrap_or_default();
        match timeout(WRITE_TIMEOUT, api.delete(name, &how)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(Error::Api(status))) if matches!(status.code, 404 | 409) => Ok(()),
            Ok(Err(failure)) => Err(sorted(failure)),
            Err(_) => Err(unanswered()),
        }
    }

    /// Writes the status of a Gateway or an Application.
    pub async fn status(
        &self,
        resource: &ApiResource,
        namespace: &str,
        name: &str,
        status: &Value,
    ) -> Result<(), WriteError> {
        self.permit()?;
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), namespace, resource);
        let body = serde_json::json!({
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"name": name, "namespace": namespace},
            "status": status,
        });
        let how = PatchParams::apply(STATUS_MANAGER).force();
        match timeout(
            WRITE_TIMEOUT,
            api.patch_status(name, &how, &Patch::Apply(&body)),
        )
        .await
        {
            // It is gone, and its status with it.
            Ok(Err(Error::Api(status))) if status.code == 404 => Ok(()),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(failure)) => Err(sorted(failure)),
            Err(_) => Err(unanswered()),
        }
    }

    fn permit(&self) -> Result<(), WriteError> {
        if self.leadership.may_write() {
            Ok(())
        } else {
            Err(WriteError::NotLeading)
        }
    }
}

async fn bounded<T>(asked: impl Future<Output = Result<T, Error>>) -> Result<T, WriteError> {
    match timeout(WRITE_TIMEOUT, asked).await {
        Ok(answer) => answer.map_err(sorted),
        Err(_) => Err(unanswered()),
    }
}

fn unanswered() -> WriteError {
    WriteError::Failed(format!(
        "no answer from the API server within {WRITE_TIMEOUT:?}"
    ))
}

/// Whether it helps to try again.
fn sorted(failure: Error) -> WriteError {
    match failure {
        Error::Api(status) if matches!(status.code, 400 | 403 | 405 | 422) => {
            WriteError::Refused(status.message)
        }
        Error::Api(status) => WriteError::Failed(status.message),
        other => WriteError::Failed(other.to_string()),
    }
}
