// The token of plaintext on loopback: a secret that the processes of one user share, in a file that nobody else can
// read. Whoever comes first makes it.
//
//   temporary file (0600, exclusive) ─▶ linked to its name, if nobody was faster ─▶ read, and its owner and mode judged
//
// Whoever changes it writes the file; it is looked at again (watched-files.ts), and is never made anew then.

import { randomBytes } from 'node:crypto';
import {
  closeSync,
  constants,
  fstatSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
  type Stats,
} from 'node:fs';
import { open } from 'node:fs/promises';
import { homedir } from 'node:os';
import path from 'node:path';
import type { Logger } from 'pino';
import { RomulusError, asError, codeOf } from '../../errors.js';
import type { ChannelToken } from './token.js';
import { WatchedFiles } from './watched-files.js';

const TOKEN_BYTES = 32;
const CHARACTERS_MIN = 32;
const CHARACTERS_MAX = 1024;
/** A FIFO would be waited for. */
const READ_FLAGS = constants.O_RDONLY | constants.O_NONBLOCK;

export type CredentialsErrorCode = 'BAD_TOKEN'; // the file of the token cannot be used

export class CredentialsError extends RomulusError<CredentialsErrorCode> {}

export class TokenFile extends WatchedFiles {
  readonly #changed: () => void;
  #token: ChannelToken;

  /**
   * @param changed the file has another token now
   * @throws CredentialsError BAD_TOKEN
   */
  constructor(file: string, changed: () => void, log: Logger) {
    const token = readToken(file);
    super('token', [file], log);
    this.#token = token;
    this.#changed = changed;
  }

  get current(): ChannelToken {
    return this.#token;
  }

  protected override async read(): Promise<void> {
    const { file, secret } = this.#token;
    const token = await readAgain(file);
    if (token.secret === secret) return;
    this.#token = token;
    this.log.info({ token: file }, 'a new token is in use');
    this.#changed();
  }
}

/** Where Romulus keeps what outlives it: `$XDG_STATE_HOME/romulus`, by default `~/.local/state/romulus`. */
export function stateDirectory(): string {
  const given = process.env['XDG_STATE_HOME'] ?? '';
  const state = path.isAbsolute(given) ? given : path.join(homedir(), '.local', 'state');
  return path.join(state, 'romulus');
}

/** The file `token` in the state directory. */
export function defaultTokenFile(): string {
  return path.join(stateDirectory(), 'token');
}

/**
 * The token in the file, which is made if it is not there.
 * @throws CredentialsError BAD_TOKEN
 */
export function readToken(file: string): ChannelToken {
  try {
    if (!exists(file)) make(file);
    return { secret: read(file), file };
  } catch (thrown) {
    if (thrown instanceof CredentialsError) throw thrown;
    const cause = asError(thrown);
    const advice = 'plaintext on loopback needs a token; "token" in the configuration names another file';
    throw bad(file, `the token cannot be had: ${cause.message}; ${advice}`, { cause });
  }
}

function exists(file: string): boolean {
  try {
    closeSync(openSync(file, READ_FLAGS));
    return true;
  } catch (thrown) {
    if (codeOf(thrown) === 'ENOENT') return false;
    throw thrown;
  }
}

/** Whole or not at all: nobody reads half of it. */
function make(file: string): void {
  mkdirSync(path.dirname(file), { recursive: true, mode: 0o700 });
  const temporary = `${file}.${process.pid}.${randomBytes(4).toString('hex')}`;
  try {
    const secret = randomBytes(TOKEN_BYTES).toString('hex');
    writeFileSync(temporary, `${secret}\n`, { flag: 'wx', mode: 0o600, flush: true });
    linkSync(temporary, file);
  } catch (thrown) {
    // Somebody was faster.
    if (codeOf(thrown) !== 'EEXIST') throw thrown;
  } finally {
    rmSync(temporary, { force: true });
  }
}

function read(file: string): string {
  const descriptor = openSync(file, READ_FLAGS);
  try {
    judge(file, fstatSync(descriptor));
    return secretOf(file, readFileSync(descriptor, 'utf8'));
  } finally {
    closeSync(descriptor);
  }
}

/** The same, for a time when nobody may have to wait for a file system. */
async function readAgain(file: string): Promise<ChannelToken> {
  const opened = await open(file, READ_FLAGS);
  try {
    judge(file, await opened.stat());
    return { secret: secretOf(file, await opened.readFile('utf8')), file };
  } finally {
    await opened.close();
  }
}

function judge(file: string, stats: Stats): void {
  if (!stats.isFile()) throw bad(file, 'is not a file');
  const self = process.geteuid?.() ?? stats.uid;
  if (stats.uid !== self && stats.uid !== 0)
    throw bad(file, `belongs to user ${stats.uid}, not to us (${self})`);
  const mode = stats.mode & 0o777;
  if ((mode & 0o077) !== 0) {
    const problem = `can be read by others (mode ${mode.toString(8)})`;
    throw bad(file, `${problem}: chmod 600 it, after a new one is made`);
  }
  if (stats.size > 2 * CHARACTERS_MAX) throw bad(file, 'is too large for a token');
}

function secretOf(file: string, text: string): string {
  const secret = text.trim();
  if (secret.length < CHARACTERS_MIN || secret.length > CHARACTERS_MAX) {
    throw bad(file, `has no ${CHARACTERS_MIN} to ${CHARACTERS_MAX} characters`);
  }
  return secret;
}

function bad(file: string, problem: string, options?: ErrorOptions): CredentialsError {
  return new CredentialsError('BAD_TOKEN', `${file}: ${problem}`, { file }, options);
}
