// What a domain of the secondary has: its credentials, its standbys, and where the output goes of the one that is taken
// over. The first standby is made ahead: it also tells what the hello says of us.

import assert from 'node:assert/strict';
import type { Observable } from 'rxjs';
import type { SecondaryLink } from '../channel/contract.js';
import { Credentials } from '../channel/credentials/credentials.js';
import { dial } from '../channel/dial/dialer.js';
import type { SecondaryDomainConfig } from '../config/schema.js';
import type { DomainEvent, DomainInfo } from '../hypervisor/port.js';
import { openConsole, reopenAll } from '../output/console.js';
import type { Outlet } from '../output/outlet.js';
import { Tap } from '../output/tap.js';
import type { SecondaryDependencies } from '../report/dependencies.js';
import type { Logger } from '../report/log.js';
import type { CertificateExpiry, StandbyState } from '../report/reports.js';
import { VERSION } from '../version.js';
import { attemptOf } from './dialling.js';
import { Standbys } from './standbys.js';
import type { Held } from './vigil-state.js';

export interface SecondaryWorldOptions {
  readonly config: SecondaryDomainConfig;
  readonly dependencies: SecondaryDependencies;
  /** A standby has ended by itself. */
  readonly ended: (was: StandbyState, event: DomainEvent) => void;
  readonly log: Logger;
}

export class SecondaryWorld {
  readonly #options: SecondaryWorldOptions;
  #credentials: Credentials | null = null;
  #console: Outlet | null = null;
  #tap: Tap | null = null;
  #standbys: Standbys | null = null;
  #info: DomainInfo | null = null;

  constructor(options: SecondaryWorldOptions) {
    this.#options = options;
  }

  /** If it fails, what was opened is there until close(). */
  async open(): Promise<void> {
    const { config, dependencies, ended, log } = this.#options;
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
      log,
    });
    this.#info = await (await this.#standbys.prepare()).info();
  }

  /** One attempt to reach the primary; to unsubscribe is to give it up. */
  dial(role: 'standby' | 'active', held: Held | null): Observable<SecondaryLink> {
    const { config } = this.#options;
    const { connectTimeoutMs } = config.failover;
    const info = this.#info;
    const credentials = this.#credentials;
    assert(info !== null && credentials !== null, 'the world is open');
    return attemptOf((signal) =>
      dial({
        url: config.primary,
        plaintext: config.plaintext,
        ...credentials.shown,
        primaryName: config.primaryName,
        connectTimeoutMs,
        handshakeTimeoutMs: connectTimeoutMs,
        software: VERSION,
        signal,
        hello: {
          domain: config.name,
          hypervisor: info.hypervisor,
          domainType: info.type,
          p2mSize: info.p2mSize,
          inventory: info.inventory ?? {},
          role,
          streamUuid: held?.streamUuid ?? null,
          epoch: held?.epoch ?? null,
        },
      }),
    );
  }

  get standbys(): Standbys {
    assert(this.#standbys !== null, 'the world is open');
    return this.#standbys;
  }

  get heldOutputBytes(): number {
    return this.#standbys?.held?.gate.heldBytes ?? 0;
  }

  get certificates(): readonly CertificateExpiry[] {
    return this.#credentials?.expiries ?? [];
  }

  /** Opens the files of the output anew, and reads the certificates for the next dial. */
  async reload(): Promise<void> {
    await reopenAll([this.#console, this.#tap], this.#options.log);
    this.#credentials?.reload();
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
