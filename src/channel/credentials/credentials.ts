// What one side shows to the other, and holds the other to: certificates under TLS, a token in plaintext on loopback
// (or where one is named). It has an end: close().

import type { Logger } from 'pino';
import { Subject, type Observable } from 'rxjs';
import { asError } from '../../errors.js';
import { isLoopback, type ChannelTls } from './security.js';
import { TlsFiles, type CertificateExpiry, type TlsPaths } from './tls-files.js';
import { defaultTokenFile, readToken } from './token-file.js';
import type { ChannelToken } from './token.js';

export interface CredentialsConfig {
  readonly tls?: TlsPaths | undefined;
  /** The file of the token. */
  readonly token?: string | undefined;
}

/** What the channel takes. */
export interface Shown {
  readonly tls: ChannelTls | undefined;
  readonly token: ChannelToken | undefined;
}

export class Credentials {
  /** What is to be shown from now on. */
  readonly changes$: Observable<Shown>;

  readonly #log: Logger;
  readonly #changes = new Subject<Shown>();
  readonly #tls: TlsFiles | null;
  readonly #tokenFile: string | null;
  #token: ChannelToken | undefined;

  /**
   * `host`: where is listened, or what is dialled.
   * @throws ChannelError TLS, CredentialsError BAD_TOKEN, or Node's system error if a file cannot be read
   */
  constructor({ tls, token }: CredentialsConfig, host: string, log: Logger) {
    this.#log = log;
    this.changes$ = this.#changes.asObservable();
    const byDefault = tls === undefined && isLoopback(host) ? defaultTokenFile() : null;
    this.#tokenFile = token ?? byDefault;
    if (this.#tokenFile !== null) this.#token = readToken(this.#tokenFile);
    this.#tls = tls === undefined ? null : new TlsFiles(tls, log);
    this.#tls?.changes$.subscribe(() => this.#changes.next(this.shown));
  }

  get shown(): Shown {
    return { tls: this.#tls?.current, token: this.#token };
  }

  get expiries(): readonly CertificateExpiry[] {
    return this.#tls?.expiries ?? [];
  }

  /** Reads the files again. What cannot be used is said, and what was in use stays. */
  reload(): void {
    void this.#tls?.reload();
    if (this.#tokenFile === null) return;
    try {
      this.#token = readToken(this.#tokenFile);
      this.#changes.next(this.shown);
    } catch (thrown) {
      this.#log.warn({ err: asError(thrown) }, 'the token in use stays, the new one is not taken');
    }
  }

  close(): void {
    this.#tls?.close();
    this.#changes.complete();
  }
}
