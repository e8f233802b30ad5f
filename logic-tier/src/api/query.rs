//! Parameters of a request: what is there, and what is wrong with it, in the publisher's words.
//!
//! As in goim a scalar that comes twice counts as it came first, and an unknown one is ignored.

use std::borrow::Cow;
use std::str::FromStr;

use wire::goim::op;

/// Parameters of one request at most; a URL has a bound in `server`, and this bounds the look-ups in it.
const MAX_PARAMETERS: usize = 16_384;

/// Why parameters cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum QueryError {
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{name} `{value}` is not a whole number{}", range(.lowest))]
    Number { name: &'static str, value: String, lowest: Option<i64> },
    #[error("operation is 0; name the operation of the packet, 1000 or above")]
    NoOperation,
    // 5 is `op::SEND_MESSAGE_REPLY`.
    #[error(
        "operation {0} belongs to the protocol; 1000 and above are the application's, and 5 is a message in the Bilibili dialect"
    )]
    ProtocolOperation(i32),
    #[error("{name} names {count}, more than the {max} that one push may")]
    TooMany { name: &'static str, count: usize, max: usize },
    #[error("{name} has a value that is empty or longer than {max_bytes} bytes")]
    Length { name: &'static str, max_bytes: usize },
    #[error("type and room: {0}")]
    Room(#[from] wire::room::RoomError),
    #[error("there are more than {MAX_PARAMETERS} parameters")]
    TooManyParameters,
}

fn range(lowest: &Option<i64>) -> String {
    lowest.map_or(String::new(), |lowest| format!(" from {lowest} up"))
}

/// The parameters of one request.
#[derive(Debug)]
pub(super) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    pub(super) fn parse(text: Option<&'a str>) -> Result<Self, QueryError> {
        let pairs = form_urlencoded::parse(text.unwrap_or("").as_bytes());
        let pairs: Vec<_> = pairs.take(MAX_PARAMETERS + 1).collect();
        if pairs.len() > MAX_PARAMETERS { Err(QueryError::TooManyParameters) } else { Ok(Self(pairs)) }
    }

    /// A text that has to be there and not be empty.
    pub(super) fn text(&self, name: &'static str) -> Result<&str, QueryError> {
        self.optional(name).ok_or(QueryError::Missing(name))
    }

    /// A text that may be there.
    pub(super) fn optional(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_ref()).filter(|value| !value.is_empty())
    }

    /// A whole number; `lowest` is for the message, the type judges.
    pub(super) fn number<N: FromStr>(&self, name: &'static str, lowest: Option<i64>) -> Result<Option<N>, QueryError> {
        self.optional(name).map(|value| parse(name, value, lowest)).transpose()
    }

    /// All values of a parameter that may be repeated, from one to `max`.
    pub(super) fn list(&self, name: &'static str, max: usize) -> Result<Vec<&str>, QueryError> {
        let values: Vec<&str> = self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_ref()).collect();
        match values.len() {
            0 => Err(QueryError::Missing(name)),
            count if count > max => Err(QueryError::TooMany { name, count, max }),
            _ => Ok(values),
        }
    }

    /// The same, each of them a number.
    pub(super) fn numbers<N: FromStr>(&self, name: &'static str, max: usize) -> Result<Vec<N>, QueryError> {
        self.list(name, max)?.into_iter().map(|value| parse(name, value, None)).collect()
    }

    /// The operation of a push: the application's own, or a message of the Bilibili dialect. With any other a client
    /// would take the message for the server's word.
    pub(super) fn operation(&self) -> Result<i32, QueryError> {
        match self.number("operation", None)?.ok_or(QueryError::Missing("operation"))? {
            0 => Err(QueryError::NoOperation),
            operation if operation >= op::FIRST_OF_APPLICATION => Ok(operation),
            op::SEND_MESSAGE_REPLY => Ok(op::SEND_MESSAGE_REPLY),
            operation => Err(QueryError::ProtocolOperation(operation)),
        }
    }
}

fn parse<N: FromStr>(name: &'static str, value: &str, lowest: Option<i64>) -> Result<N, QueryError> {
    /// As much of a wrong value as is shown again.
    const SHOWN_CHARS: usize = 32;
    value.parse().map_err(|_| QueryError::Number { name, value: value.chars().take(SHOWN_CHARS).collect(), lowest })
}
