//! A WebSocket (RFC 6455) as a phone's stream needs it: what comes is metered, and what goes is driven by the
//! response's body (docs/adr/0009).

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::Payload as DevPayload;
use actix_web::error::PayloadError;
use actix_web::web::{Bytes, Payload};
use actix_web::{FromRequest as _, HttpRequest, HttpResponse};
use actix_ws::{AggregatedMessageStream, Session};
use futures_util::{Stream, StreamExt as _};
use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// Bytes that may come before one of them makes a message: more than a connection reads at once, which may
/// be many messages.
const MAX_UNREAD: usize = 256 * 1024;

/// A WebSocket, once the response is on its way.
pub struct Opened {
    pub response: HttpResponse,
    pub session: Session,
    pub messages: AggregatedMessageStream,
    pub unread: Unread,
}

/// Bytes that have come since the last message.
#[derive(Clone, Default)]
pub struct Unread(Rc<Cell<usize>>);

impl Unread {
    /// A message was made of them.
    pub fn clear(&self) {
        self.0.set(0);
    }
}

/// Takes up a request for a WebSocket whose messages have up to `max_message` bytes; `None`: it is none.
pub fn open(request: &HttpRequest, payload: Payload, max_message: usize) -> Option<Opened> {
    let unread = Unread::default();
    let metered = Metered {
        payload: payload.into_inner(),
        unread: unread.clone(),
    };
    let mut metered = DevPayload::Stream {
        payload: metered.boxed_local(),
    };
    let payload = Payload::from_request(request, &mut metered).into_inner();
    let (response, session, messages) = actix_ws::handle(request, payload.ok()?).ok()?;
    let messages = messages
        .max_frame_size(max_message)
        .aggregate_continuations()
        .max_continuation_size(max_message);
    Some(Opened {
        response,
        session,
        messages,
        unread,
    })
}

/// The response, which goes on as long as the conversation does.
pub fn drive(
    response: HttpResponse,
    conversation: impl Future<Output = ()> + 'static,
) -> HttpResponse {
    response
        .map_body(|_, frames| DrivenBody {
            conversation: Some(Box::pin(conversation)),
            frames,
        })
        .map_into_boxed_body()
}

/// What comes from the phone, counted: the library looks at a frame's length only when all of it is there,
/// and would keep whatever is sent until then.
struct Metered {
    payload: DevPayload,
    unread: Unread,
}

impl Stream for Metered {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = Pin::new(&mut self.payload).poll_next(context);
        if let Poll::Ready(Some(Ok(bytes))) = &polled {
            let unread = self.unread.0.get() + bytes.len();
            self.unread.0.set(unread);
            if unread > MAX_UNREAD {
                return Poll::Ready(Some(Err(PayloadError::Overflow)));
            }
        }
        polled
    }
}

/// The frames that go to the phone, and the conversation that makes them.
struct DrivenBody {
    conversation: Option<Pin<Box<dyn Future<Output = ()>>>>,
    frames: BoxBody,
}

impl MessageBody for DrivenBody {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.frames.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let this = &mut *self;
        if let Some(conversation) = &mut this.conversation
            && conversation.as_mut().poll(context).is_ready()
        {
            this.conversation = None;
        }
        Pin::new(&mut this.frames).poll_next(context)
    }
}
