// What the flows stand on: a server as an operator runs it, its command line, phones in a terminal, and
// the relying party's own HTTP endpoint. Nothing here knows assent from the inside.

import { execFile, spawn } from 'node:child_process';
import { mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';

const run = promisify(execFile);
const READY_WITHIN = 20_000; // ms
const COMMAND_WITHIN = 20_000; // ms

/** A port nobody has now; somebody may take it before the server does, hence the attempts below. */
async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

export class World {
  #server;
  #people = 0;

  constructor(program) {
    this.program = program;
    this.folder = mkdtempSync(join(tmpdir(), 'assent-interop.'));
    this.log = join(this.folder, 'server.log');
  }

  /** Starts the server and waits until it says that it is ready. */
  async start() {
    for (let attempt = 1; ; attempt += 1) {
      const listen = `127.0.0.1:${await freePort()}`;
      const management = `127.0.0.1:${await freePort()}`;
      this.issuer = `http://${listen}`;
      const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith('ASSENT_'));
      this.env = {
        ...Object.fromEntries(inherited),
        ASSENT_SERVER__MODE: 'dev',
        ASSENT_SERVER__ISSUER: this.issuer,
        ASSENT_SERVER__PUBLIC_LISTEN: listen,
        ASSENT_SERVER__MANAGEMENT_LISTEN: management,
        ASSENT_DATABASE__URL: `sqlite://${join(this.folder, 'assent.db')}?mode=rwc`,
        ASSENT_KEYS__DEPLOYMENT_KEY_FILE: join(this.folder, 'deployment.key'),
        ASSENT_CIBA__INTERVAL: '1s', // the library waits this long before its first poll
      };
      const log = openSync(this.log, 'w');
      this.#server = spawn(this.program, ['serve', '--migrate'], {
        env: this.env,
        cwd: this.folder,
        stdio: ['ignore', log, log],
      });
      if (await this.#isReady(management)) return;
      await this.#end();
      if (attempt === 3 || !this.logText().includes('Address already in use')) {
        throw new Error(`the server did not become ready; its log:\n${this.logText()}`);
      }
    }
  }

  async #isReady(management) {
    for (const until = Date.now() + READY_WITHIN; Date.now() < until; await sleep(50)) {
      if (this.#server.exitCode !== null) return false;
      const answer = await fetch(`http://${management}/readyz`).catch(() => undefined);
      if (answer?.ok) return true;
    }
    return false;
  }

  async #end() {
    const server = this.#server;
    if (server.exitCode !== null || server.signalCode !== null) return;
    const ended = new Promise((resolve) => server.once('exit', resolve));
    server.kill('SIGTERM');
    await Promise.race([ended, sleep(5_000)]);
    if (server.exitCode === null && server.signalCode === null) server.kill('SIGKILL');
  }

  async stop() {
    if (this.#server) await this.#end();
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** For the moment in which there is no time left to wait. */
  kill() {
    this.#server?.kill('SIGKILL');
    rmSync(this.folder, { recursive: true, force: true });
  }

  logText() {
    return readFileSync(this.log, 'utf8').split('\n').slice(-20).join('\n');
  }

  /** One command of assent, as JSON. */
  async assent(...args) {
    const options = { env: this.env, cwd: this.folder, timeout: COMMAND_WITHIN };
    const { stdout } = await run(this.program, ['--json', ...args], options);
    return JSON.parse(stdout);
  }

  /** Lets the running server sign tokens with another algorithm, and waits until it publishes the key. */
  async signsTokens(algorithm) {
    await this.assent('keys', 'rotate', 'token-signing', '--alg', algorithm, '--now');
    for (const until = Date.now() + READY_WITHIN; Date.now() < until; await sleep(50)) {
      const { keys } = await (await fetch(`${this.issuer}/jwks`)).json();
      if (keys.some((key) => key.alg === algorithm)) return;
    }
    throw new Error(`the server does not publish a key for ${algorithm}`);
  }

  /** Registers a relying party; its secret, if it has one. */
  async client(id, ...options) {
    const added = await this.assent('client', 'add', `Interop ${id}`, '--id', id, ...options);
    return added.client_secret;
  }

  /** Somebody new with a phone of their own, so that no flow meets another's requests. */
  async person() {
    this.#people += 1;
    const login = `person-${this.#people}`;
    const { sub } = await this.assent('user', 'add', login, '--name', `Person ${this.#people}`);
    const { link } = await this.assent('enrol', login);
    const file = join(this.folder, `${login}.json`);
    await this.assent('phone', '--file', file, 'enrol', link);
    return {
      login,
      sub,
      approve: () => this.assent('phone', '--file', file, 'approve'),
      deny: () => this.assent('phone', '--file', file, 'deny'),
      list: () => this.assent('phone', '--file', file, 'list'),
    };
  }
}

/** The relying party's own endpoint on loopback: takes notifications, and serves its keys. */
export class Endpoint {
  #received = [];
  #waiting = [];
  #server = createServer((request, response) => this.#answer(request, response));
  fetched = 0;
  jwks = { keys: [] };

  async start() {
    await new Promise((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    const url = `http://127.0.0.1:${this.#server.address().port}`;
    this.notifyUrl = `${url}/notify`;
    this.jwksUrl = `${url}/jwks.json`;
  }

  stop() {
    this.#server.closeAllConnections();
    this.#server.close();
  }

  async #answer(request, response) {
    let body = '';
    for await (const chunk of request) body += chunk;
    if (request.url === '/jwks.json') {
      this.fetched += 1;
      response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(this.jwks));
      return;
    }
    response.writeHead(204).end();
    const { method, url, headers } = request;
    const notification = { method, url, headers, body };
    const waiting = this.#waiting.shift();
    if (waiting) waiting(notification);
    else this.#received.push(notification);
  }

  /** The next notification. */
  async next(within = 10_000) {
    if (this.#received.length > 0) return this.#received.shift();
    const arrives = new Promise((resolve) => this.#waiting.push(resolve));
    const late = sleep(within, undefined, { ref: false }).then(() => {
      throw new Error(`no notification within ${within} ms`);
    });
    return Promise.race([arrives, late]);
  }

  /** What came that nobody waited for. */
  get unread() {
    return this.#received.length;
  }
}
