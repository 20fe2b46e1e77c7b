// What a domain of the secondary has: its credentials, its standbys, and where the output goes of the one that is taken
// over. The first standby is made ahead: it also tells what the hello says of us.

import assert from 'node:assert/strict';
import { BehaviorSubject, tap, type Observable } from 'rxjs';
import type { Hello, SecondaryLink } from '../channel/contract.js';
import { Credentials } from '../channel/credentials/credentials.js';
import type { ChannelToken } from '../channel/credentials/token.js';
import { dial } from '../channel/dial/dialer.js';
import type { SecondaryDomainConfig } from '../config/agent.js';
import { codeOf } from '../errors.js';
import type { Reloaded } from '../flow/reloaded.js';
import type { DiskPoint, DiskTarget } from '../hypervisor/port-disks.js';
import type { DomainEvent, DomainInfo } from '../hypervisor/port.js';
import { consoleFile, openConsole, reopenAll } from '../output/console.js';
import type { Outlet } from '../output/outlet.js';
import { Tap } from '../output/tap.js';
import type { SecondaryDependencies } from '../report/dependencies.js';
import type { Estate } from '../report/estate.js';
import type { Logger } from '../report/log.js';
import type { CertificateExpiry, StandbyState } from '../report/reports.js';
import { VERSION } from '../version.js';
import { attemptOf } from './dialling.js';
import { diskAnswers, type Filled } from './disk-answers.js';
import { Standbys, type Standby } from './standbys.js';
import type { Effect, Held } from './vigil-state.js';

/** A way to a host that may run the domain. */
export interface Route {
  readonly url: string;
  /** The name in its certificate, where it is not that of the address. */
  readonly primaryName?: string | undefined;
  /** It was taken, and what came of it: null, or the code of the refusal. */
  readonly tried?: (code: string | null) => void;
}

export interface SecondaryWorldOptions {
  readonly config: SecondaryDomainConfig;
  /** The name of this host. */
  readonly host: string;
  /** Whom to dial; what is held comes from one host. */
  readonly route: (held: Held | null) => Route;
  readonly dependencies: SecondaryDependencies;
  /** A standby has ended by itself. */
  readonly ended: (was: StandbyState, event: DomainEvent) => void;
  /** What is held was stopped by somebody, or runs again; see stoppedBy. */
  readonly stopped: () => void;
  readonly log: Logger;
}

export class SecondaryWorld {
  readonly #options: SecondaryWorldOptions;
  #credentials: Credentials | null = null;
  /** That of the last link. */
  #lastToken: ChannelToken | undefined;
  #console: Outlet | null = null;
  #tap: Tap | null = null;
  #standbys: Standbys | null = null;
  #info: DomainInfo | null = null;
  readonly #filled$ = new BehaviorSubject<Filled | null>(null);

  constructor(options: SecondaryWorldOptions) {
    this.#options = options;
  }

  /** If it fails, what was opened is there until close(). */
  async open(): Promise<void> {
    const { config, dependencies, ended, stopped, log } = this.#options;
    const { output, primary } = config;
    this.#credentials = new Credentials(config, new URL(primary).hostname, log);
    this.#console = await openConsole(output.console, dependencies.openConsole?.(config), log);
    this.#tap = output.tap === undefined ? null : await Tap.open(output.tap, log);
    this.#standbys = new Standbys({
      open: () => dependencies.openTarget(config),
      console: this.#console,
      tap: this.#tap,
      limitBytes: output.limitBytes,
      ended,
      stopped,
      log,
    });
    this.#info = await (await this.#standbys.prepare()).info();
  }

  /** One attempt to reach the primary; to unsubscribe is to give it up. */
  dial({ held, shared }: Pick<Effect<'dial'>, 'held' | 'shared'>): Observable<SecondaryLink> {
    const { config, host, route } = this.#options;
    const { url, primaryName, tried } = route(held);
    const { connectTimeoutMs } = config.failover;
    const info = this.#info;
    const credentials = this.#credentials;
    assert(info !== null && credentials !== null, 'the world is open');
    const { tls, token } = credentials.shown;
    const lastToken = this.#lastToken;
    return attemptOf((signal) =>
      dial({
        url,
        plaintext: config.plaintext,
        tls,
        token,
        lastToken,
        primaryName,
        connectTimeoutMs,
        handshakeTimeoutMs: connectTimeoutMs,
        software: VERSION,
        signal,
        hello: {
          domain: config.name,
          host,
          hypervisor: info.hypervisor,
          domainType: info.type,
          p2mSize: info.p2mSize,
          inventory: info.inventory ?? {},
          streamUuid: held?.streamUuid ?? null,
          epoch: held?.epoch ?? null,
          pairing: held?.pairing ?? null,
          shared,
          ...imagesOf(this.#standbys?.disks ?? null),
        },
      }),
    ).pipe(
      tap({
        next: (link) => {
          this.#lastToken = token;
          tried?.(null);
          // Over when the link is.
          diskAnswers(link, this.#filled$).subscribe();
        },
        error: (error: unknown) => tried?.(codeOf(error)),
      }),
    );
  }

  /** The domain of the standbys is what this stream is restored into. */
  fills(streamUuid: string): void {
    const domain = this.standbys.domain$.value;
    if (domain) this.#filled$.next({ streamUuid, disks: domain.disks ?? null });
  }

  get standbys(): Standbys {
    assert(this.#standbys !== null, 'the world is open');
    return this.#standbys;
  }

  /** What would be taken over. */
  get held(): Standby | null {
    return this.#standbys?.held ?? null;
  }

  get heldOutputBytes(): number {
    return this.#standbys?.held?.gate.heldBytes ?? 0;
  }

  /** By what the held one was stopped, if not by us. */
  get stoppedBy(): string | null {
    return this.#standbys?.held?.stoppedBy ?? null;
  }

  get certificates(): readonly CertificateExpiry[] {
    return this.#credentials?.expiries ?? [];
  }

  /** Opens the files of the output anew, and reads the certificates for the next dial. */
  async reload(): Promise<readonly Reloaded[]> {
    const { config, log } = this.#options;
    const outputs = [
      { file: consoleFile(config.output.console), output: this.#console },
      { file: config.output.tap, output: this.#tap },
    ];
    const [reopened, read = []] = await Promise.all([reopenAll(outputs, log), this.#credentials?.reload()]);
    return [...reopened, ...read];
  }

  /** The console and the tap go with the domain that was taken over. */
  async bequeath(): Promise<Estate> {
    const estate = await this.standbys.bequeath();
    this.#console = null;
    this.#tap = null;
    return estate;
  }

  /** No standby is made any more; the spare is destroyed. */
  async endStandbys(): Promise<void> {
    await this.#standbys?.close();
  }

  async close(): Promise<void> {
    this.#credentials?.close();
    await this.#tap?.close();
    this.#console?.close();
  }
}

/** What a primary is to know of them. */
function imagesOf(disks: DiskTarget | null): Pick<Hello, 'images' | 'blankDisks'> {
  let images: DiskPoint | null = null;
  // The present point comes first, and at once.
  disks?.durable$.subscribe((point) => (images = point)).unsubscribe();
  const blank = (disks?.disks ?? []).filter((_, index) => disks?.isBlank(index) === true);
  return { images, blankDisks: blank.map(({ id }) => id) };
}
