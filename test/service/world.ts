// Services with memory domains, in this process or in children that can be killed and stopped.

import { readFileSync } from 'node:fs';
import { pino, type Logger } from 'pino';
import { parsePrimaryConfig, parseSecondaryConfig } from '../../src/config/load.js';
import { MemoryDomain } from '../memory/domain.js';
import { openSource, openTarget } from '../../src/service/hypervisors.js';
import { createPrimaryService } from '../../src/service/primary-service.js';
import type {
  CheckpointReport,
  CommitReport,
  FailoverEvent,
  PrimaryService,
  SecondaryService,
  TransitionReport,
} from '../../src/report/reports.js';
import { createSecondaryService } from '../../src/service/secondary-service.js';
import { MemoryGuest } from './memory-guest.js';

export const PAGES = 512;
export const log = pino({ level: process.env['ROMULUS_TEST_LOG'] ?? 'silent' }, pino.destination(2));

export interface PrimaryChanges {
  readonly port?: number;
  /** Of the sections `listen` and of each domain. */
  readonly listen?: Record<string, unknown>;
  readonly domain?: Record<string, unknown>;
  readonly log?: Logger;
  readonly start?: 'immediately' | 'with-secondary';
  readonly checkpoint?: Record<string, unknown>;
  readonly heartbeat?: Record<string, unknown>;
  readonly output?: Record<string, unknown>;
  readonly names?: readonly string[];
  /** Of single domains, by their names. */
  readonly outputs?: Readonly<Record<string, Record<string, unknown>>>;
  /** The domains have a device model. */
  readonly emulator?: boolean;
  /** An embedded machine instead of a memory domain. */
  readonly embedded?: Record<string, unknown>;
  /** Called for each domain that is made. */
  readonly made?: (domain: MemoryDomain) => void;
}

export class TestPrimary {
  readonly service: PrimaryService;
  readonly checkpoints: CheckpointReport[] = [];
  readonly transitions: TransitionReport[] = [];
  readonly guests = new Map<string, MemoryGuest>();
  private readonly out = new Map<string, Buffer[]>();

  constructor(changes: PrimaryChanges = {}, guestOptions?: ConstructorParameters<typeof MemoryGuest>[1]) {
    const config = parsePrimaryConfig({
      listen: { port: changes.port ?? 0, ...changes.listen },
      domains: (changes.names ?? ['alpha']).map((name) => ({
        name,
        hypervisor: { kind: 'embedded', ...changes.embedded },
        start: changes.start ?? 'immediately',
        checkpoint: { intervalMs: 10, slab: '2MiB', ...changes.checkpoint },
        heartbeat: { intervalMs: 50, timeoutMs: 600, ...changes.heartbeat },
        output: { console: 'none', ...changes.output, ...changes.outputs?.[name] },
        ...changes.domain,
      })),
    });
    this.service = createPrimaryService(config, {
      log: changes.log ?? log,
      openSource: (domainConfig) => {
        if (changes.embedded) return openSource(domainConfig);
        const { name } = domainConfig;
        if (name.startsWith('broken')) return Promise.reject(new Error('no such machine'));
        const domain = new MemoryDomain({ name, pages: PAGES, emulator: changes.emulator ?? false });
        this.guests.set(name, new MemoryGuest(domain, guestOptions));
        changes.made?.(domain);
        return Promise.resolve(domain);
      },
      ...((changes.outputs ?? changes.output?.['console']) === undefined && {
        openConsole: ({ name }) => {
          const pieces: Buffer[] = [];
          this.out.set(name, pieces);
          return { write: (bytes) => void pieces.push(Buffer.from(bytes)), close: () => undefined };
        },
      }),
    });
    this.service.checkpoints$.subscribe((report) => this.checkpoints.push(report));
    this.service.transitions$.subscribe((report) => this.transitions.push(report));
  }

  guest(name = 'alpha'): MemoryGuest {
    const guest = this.guests.get(name);
    if (!guest) throw new Error(`no guest ${name}`);
    return guest;
  }

  output(name = 'alpha'): string {
    return Buffer.concat(this.out.get(name) ?? []).toString();
  }

  status(name = 'alpha') {
    const status = this.service.statuses().find((candidate) => candidate.domain === name);
    if (!status) throw new Error(`no status of ${name}`);
    return status;
  }
}

export interface SecondaryChanges {
  /** Of each domain. */
  readonly domain?: Record<string, unknown>;
  readonly log?: Logger;
  readonly failover?: Record<string, unknown>;
  readonly output?: Record<string, unknown>;
  readonly names?: readonly string[];
  readonly buffer?: string;
  readonly emulator?: boolean;
  readonly embedded?: Record<string, unknown>;
  /** Called for each domain that is made. */
  readonly made?: (domain: MemoryDomain) => void;
}

export class TestSecondary {
  readonly service: SecondaryService;
  readonly commits: CommitReport[] = [];
  readonly failovers: FailoverEvent[] = [];
  readonly transitions: TransitionReport[] = [];
  /** Every domain that was made, in order. */
  readonly domains: MemoryDomain[] = [];
  private readonly out: Buffer[] = [];

  constructor(port: number, changes: SecondaryChanges = {}) {
    const config = parseSecondaryConfig({
      domains: (changes.names ?? ['alpha']).map((name) => ({
        name,
        primary: `ws://127.0.0.1:${port}`,
        hypervisor: { kind: 'embedded', ...changes.embedded },
        ...(changes.buffer !== undefined && { buffer: changes.buffer }),
        failover: { redialMinMs: 10, redialMaxMs: 100, ...changes.failover },
        output: { console: 'none', ...changes.output },
        ...changes.domain,
      })),
    });
    this.service = createSecondaryService(config, {
      log: changes.log ?? log,
      openTarget: (domainConfig) => {
        if (changes.embedded) return openTarget(domainConfig);
        const { name } = domainConfig;
        const { emulator = false } = changes;
        const domain = new MemoryDomain({ name, pages: PAGES, empty: true, emulator });
        this.domains.push(domain);
        changes.made?.(domain);
        return Promise.resolve(domain);
      },
      ...(changes.output?.['console'] === undefined && {
        openConsole: () => ({
          write: (bytes) => void this.out.push(Buffer.from(bytes)),
          close: () => undefined,
        }),
      }),
    });
    this.service.commits$.subscribe((report) => this.commits.push(report));
    this.service.failover$.subscribe((event) => this.failovers.push(event));
    this.service.transitions$.subscribe((report) => this.transitions.push(report));
  }

  output(): string {
    return Buffer.concat(this.out).toString();
  }

  status(name = 'alpha') {
    const status = this.service.statuses().find((candidate) => candidate.domain === name);
    if (!status) throw new Error(`no status of ${name}`);
    return status;
  }

  /** The domain that runs. */
  running(): MemoryDomain {
    const domain = this.domains.find((candidate) => candidate.state === 'running');
    if (!domain) throw new Error('no domain runs');
    return domain;
  }
}

export function fileText(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}
