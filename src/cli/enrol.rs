//! `assent enrol USER`.

use super::output::time;
use super::{Context, user};
use anyhow::Context as _;
use clap::Args;
use qrcode::QrCode;
use qrcode::render::unicode;
use serde_json::json;

#[derive(Debug, Args)]
pub struct Enrol {
    /// The person's login
    user: String,
    /// Draw the link as a QR code
    #[arg(long)]
    qr: bool,
}

impl Enrol {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let core = context.core().await?;
        let user = user::find(&core, &self.user).await?;
        anyhow::ensure!(
            user.locked_at.is_none(),
            "{} is locked and cannot enrol a phone",
            self.user
        );
        let ticket = core.services.create_enrolment(&user).await?;
        let (link, code) = (ticket.link.expose(), ticket.typed_code.expose());
        if self.qr {
            context.output.say(&draw_qr(link)?);
        }
        context.output.result(
            &format!(
                "link   {link}\ncode   {code}\nuntil  {}\n\nEither works once. In a terminal: assent phone enrol '{link}'",
                time(ticket.expires_at)
            ),
            &json!({ "link": link, "code": code, "expires_at": ticket.expires_at.secs() }),
        );
        core.db.close().await;
        Ok(())
    }
}

/// A QR code in characters.
pub fn draw_qr(text: &str) -> anyhow::Result<String> {
    let code = QrCode::new(text).context("the link is too long for a QR code")?;
    Ok(code.render::<unicode::Dense1x2>().build())
}
