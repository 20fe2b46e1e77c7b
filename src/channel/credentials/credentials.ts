// What one side shows to the other, and holds the other to: certificates under TLS, a token in plaintext on loopback
// (or where one is named). It has an end: close().

import type { Logger } from 'pino';
import { Subject, type Observable } from 'rxjs';
import type { Reloaded } from '../../flow/reloaded.js';
import { isLoopback, type ChannelTls } from './security.js';
import { TlsFiles, type CertificateExpiry, type TlsPaths } from './tls-files.js';
import { TokenFile, defaultTokenFile } from './token-file.js';
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

  readonly #changes = new Subject<Shown>();
  readonly #tls: TlsFiles | null;
  readonly #token: TokenFile | null;

  /**
   * `host`: where is listened, or what is dialled.
   * @throws ChannelError TLS, CredentialsError BAD_TOKEN, or Node's system error if a file cannot be read
   */
  constructor({ tls, token }: CredentialsConfig, host: string, log: Logger) {
    this.changes$ = this.#changes.asObservable();
    const byDefault = tls === undefined && isLoopback(host) ? defaultTokenFile() : null;
    const tokenFile = token ?? byDefault;
    const changed = () => this.#changes.next(this.shown);
    this.#token = tokenFile === null ? null : new TokenFile(tokenFile, changed, log);
    try {
      this.#tls = tls === undefined ? null : new TlsFiles(tls, changed, log);
    } catch (error) {
      this.#token?.close();
      throw error;
    }
  }

  get shown(): Shown {
    return { tls: this.#tls?.current, token: this.#token?.current };
  }

  get expiries(): readonly CertificateExpiry[] {
    return this.#tls?.expiries ?? [];
  }

  /** Reads the files again. What cannot be used is said, and what was in use stays. */
  async reload(): Promise<readonly Reloaded[]> {
    const watched = [this.#tls, this.#token].filter((files) => files !== null);
    return Promise.all(watched.map((files) => files.reload()));
  }

  close(): void {
    this.#tls?.close();
    this.#token?.close();
    this.#changes.complete();
  }
}
