# assent as a user without rights.
#
#   docker build -t assent .
FROM rust:1.95.0-bookworm AS build
# The image has this release; rust-toolchain.toml would have it fetch lints and formats, too.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /assent
COPY Cargo.toml Cargo.lock ./
COPY config config
COPY crates crates
COPY loadtest loadtest
COPY migrations migrations
COPY src src
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/assent/target \
    cargo build --release --locked --bin assent \
    && cp target/release/assent /usr/local/bin/assent \
    && mkdir /data

FROM debian:bookworm-slim
COPY --from=build /usr/local/bin/assent /usr/local/bin/assent
# For what a server keeps beside its stores, such as the deployment key of dev mode.
COPY --from=build --chown=65534:65534 /data /data
WORKDIR /data
USER 65534:65534
ENV ASSENT_SERVER__PUBLIC_LISTEN=0.0.0.0:8080
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=5s --start-period=10s CMD ["assent", "healthcheck"]
ENTRYPOINT ["assent"]
CMD ["serve"]
