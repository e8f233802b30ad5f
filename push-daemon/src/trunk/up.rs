//! News from shards become frames for the tier.

use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;

use tokio::time::Instant;
use wire::trunk::session_event::Event;
use wire::trunk::{AuthRequest, ChatUp, EdgeReport, Joined, Left, Moved, SessionBatch, SessionEvent, edge_frame};

use super::Hub;
use super::status::count;
use crate::shard::news::News;
use crate::shard::order::{Order, Refusal};
use crate::shard::reason::CloseReason;

impl Hub {
    /// Passes on what shards told, in order.
    pub(super) async fn take_news(&mut self, news: &mut Vec<News>) {
        let mut events = Vec::new();
        for news in news.drain(..) {
            match news {
                News::Auth { place, body, cookie, address } => {
                    self.last_id += 1;
                    let request = AuthRequest {
                        id: self.last_id,
                        dialect: body.dialect.into(),
                        mid: body.mid,
                        key: body.key,
                        room: body.room.map(|room| room.to_string()).unwrap_or_default(),
                        platform: body.platform,
                        accepts: body.accepts,
                        token: body.token,
                        cookie,
                        address,
                    };
                    if self.is_full() {
                        let why = CloseReason::AuthUnavailable;
                        let refusal = Refusal { code: why.code(), reason: why.words().into() };
                        self.give_one(place, Order::Refused(place, refusal)).await;
                        continue;
                    }
                    self.auths.insert(request.id, (request.clone(), place, Instant::now()));
                    self.send_up(edge_frame::Body::Auth(request)).await;
                }
                News::Message { place, header, mid, room, body } => {
                    if self.is_full() {
                        count(&self.status.messages_refused_total);
                        let refusal = Refusal { code: -503, reason: "too busy, try again later".into() };
                        self.give_one(place, Order::MessageDone(place, header, Some(refusal))).await;
                        continue;
                    }
                    // A message is judged by where its sender is, so the tier hears of that first.
                    self.send_sessions(&mut events).await;
                    self.last_message += 1;
                    let place_key = place.to_key(&self.identity.secret);
                    let message = ChatUp { id: self.last_message, place: place_key, mid, room: room.into(), body };
                    self.messages.insert(message.id, (message.clone(), place, header));
                    self.send_up(edge_frame::Body::Chat(message)).await;
                }
                News::Joined { place, mid, key, room, platform, address } => {
                    let place = place.to_key(&self.identity.secret);
                    let key = key.map_or_else(|| place.clone(), Into::into);
                    let joined = Joined {
                        mid,
                        key,
                        room: room.map(Into::into).unwrap_or_default(),
                        address,
                        platform: platform.into(),
                    };
                    events.push(SessionEvent { place, event: Some(Event::Joined(joined)) });
                }
                News::Moved { place, room } => {
                    let moved = Moved { room: room.map(Into::into).unwrap_or_default() };
                    events.push(SessionEvent {
                        place: place.to_key(&self.identity.secret),
                        event: Some(Event::Moved(moved)),
                    });
                }
                News::Left { place } => {
                    let place = place.to_key(&self.identity.secret);
                    events.push(SessionEvent { place, event: Some(Event::Left(Left {})) });
                }
            }
        }
        self.send_sessions(&mut events).await;
    }

    /// What the edge says of its load, and of its clients' networks.
    pub(super) fn report(&self) -> EdgeReport {
        EdgeReport {
            connections: self.counters.iter().map(|counters| counters.connections.get()).sum(),
            max_connections: self.identity.max_connections,
            draining: self.draining.load(Relaxed),
            isps: self.status.isps.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    fn is_full(&self) -> bool {
        self.auths.len() + self.messages.len() >= self.max_pending
    }

    /// Without a line they are dropped: the next one begins with a full picture.
    async fn send_sessions(&self, events: &mut Vec<SessionEvent>) {
        if !events.is_empty() {
            let events = std::mem::take(events);
            self.send_up(edge_frame::Body::Sessions(SessionBatch { resync: false, events })).await;
        }
    }
}
