//! Answers as goim gives them: `{"code":0,"message":"","data":...}`, `data` left out when there is none.

use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

/// The request was not what the API asks for.
pub(super) const BAD_REQUEST: i32 = -400;

/// The tier could not do it.
pub(super) const SERVER_ERROR: i32 = -500;

/// One answer.
#[derive(Debug, Serialize)]
pub(super) struct Reply {
    code: i32,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// Serialised already: goim's fields have an order.
    data: Option<Box<RawValue>>,
    #[serde(skip)]
    status: StatusCode,
}

impl Reply {
    pub(super) fn done() -> Self {
        Self { code: 0, message: String::new(), data: None, status: StatusCode::OK }
    }

    pub(super) fn data(data: impl Serialize) -> Self {
        match to_raw_value(&data) {
            Ok(data) => Self { data: Some(data), ..Self::done() },
            Err(error) => Self::refused(SERVER_ERROR, error.to_string()),
        }
    }

    pub(super) fn refused(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), ..Self::done() }
    }

    pub(super) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self) {
            Ok(body) => {
                let kind = HeaderValue::from_static("application/json; charset=utf-8");
                (self.status, [(CONTENT_TYPE, kind)], body).into_response()
            }
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        }
    }
}
