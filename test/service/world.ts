// Two hosts with memory domains, each with its agent, in this process or in children that can be killed and stopped: the
// primary is north, and runs the domains at first; the secondary is south.

import { readFileSync } from 'node:fs';
import { pino, type Logger } from 'pino';
import { createMemoryWitness } from '../../src/failover/witnesses/memory.js';
import { openSource, openTarget } from '../../src/service/hypervisors.js';
import type { MemoryDisks } from '../memory/disks.js';
import { MemoryDomain } from '../memory/domain.js';
import { until } from '../support/until.js';
import {
  agentOn,
  WatchedHost,
  type HostName,
  type HostOptions,
  type Reach,
  type Registers,
} from './hosts.js';
import { MemoryGuest } from './memory-guest.js';

export const PAGES = 512;
export const log = pino({ level: process.env['ROMULUS_TEST_LOG'] ?? 'silent' }, pino.destination(2));

interface Changes {
  /** Keys of the file: tls, token. */
  readonly file?: HostOptions['file'];
  readonly hosts?: HostOptions['hosts'];
  /** Of each domain. */
  readonly domain?: Record<string, unknown>;
  readonly log?: Logger;
  readonly output?: Record<string, unknown>;
  readonly names?: readonly string[];
  /** The domains have a device model. */
  readonly emulator?: boolean;
  /** An embedded machine instead of a memory domain. */
  readonly embedded?: Record<string, unknown>;
  /** The disks of its domain, which all that is made there have in common. */
  readonly disks?: MemoryDisks;
  /** Called for each domain that is made. */
  readonly made?: (domain: MemoryDomain) => void;
}

export interface PrimaryChanges extends Changes {
  readonly port?: number;
  /** Left out: its own. */
  readonly registers?: Registers;
  readonly start?: 'immediately' | 'with-standby';
  readonly checkpoint?: Record<string, unknown>;
  readonly heartbeat?: Record<string, unknown>;
  /** Of single domains, by their names. */
  readonly outputs?: Readonly<Record<string, Record<string, unknown>>>;
}

export interface SecondaryChanges extends Changes {
  readonly host?: HostName;
  readonly failover?: Record<string, unknown>;
  readonly buffer?: string;
}

export class TestPrimary extends WatchedHost implements Reach {
  readonly registers: Registers;
  readonly guests: Map<string, MemoryGuest>;
  readonly #changes: PrimaryChanges;
  readonly #out: Map<string, Buffer[]>;

  constructor(changes: PrimaryChanges = {}, guestOptions?: ConstructorParameters<typeof MemoryGuest>[1]) {
    const { registers = createMemoryWitness(), file, hosts, emulator = false, embedded } = changes;
    const ofDisks = changes.disks ? { disks: changes.disks } : {};
    const guests = new Map<string, MemoryGuest>();
    const out = new Map<string, Buffer[]>();
    const domains = (changes.names ?? ['alpha']).map((name) => ({
      name,
      hypervisor: { kind: 'embedded', ...embedded },
      start: changes.start ?? 'immediately',
      checkpoint: { intervalMs: 10, slab: '2MiB', ...changes.checkpoint },
      heartbeat: { intervalMs: 50, timeoutMs: 600, ...changes.heartbeat },
      output: { console: 'none', ...changes.output, ...changes.outputs?.[name] },
      ...changes.domain,
    }));
    const options = {
      port: changes.port ?? 0,
      registers,
      domains,
      ...(file && { file }),
      ...(hosts && { hosts }),
    };
    const service = agentOn('north', options, {
      log: changes.log ?? log,
      openSource: (config) => {
        if (embedded) return openSource(config);
        const { name } = config;
        if (name.startsWith('broken')) return Promise.reject(new Error('no such machine'));
        const domain = new MemoryDomain({ name, pages: PAGES, emulator, ...ofDisks });
        guests.set(name, new MemoryGuest(domain, guestOptions));
        changes.made?.(domain);
        return Promise.resolve(domain);
      },
      openTarget: (config) => {
        if (embedded) return openTarget(config);
        const { name } = config;
        return Promise.resolve(new MemoryDomain({ name, pages: PAGES, empty: true, emulator, ...ofDisks }));
      },
      ...((changes.outputs ?? changes.output?.['console']) === undefined && {
        openConsole: ({ name }) => {
          const pieces = out.get(name) ?? [];
          out.set(name, pieces);
          return { write: (bytes) => void pieces.push(Buffer.from(bytes)), close: () => undefined };
        },
      }),
    });
    super(service);
    this.registers = registers;
    this.guests = guests;
    this.#changes = changes;
    this.#out = out;
  }

  /** Resolves when its domains are made, and run unless they wait for a standby. */
  async start(): Promise<void> {
    await this.service.start();
    const { names = ['alpha'], start, embedded } = this.#changes;
    if (embedded) return;
    const running = start === 'with-standby' ? ['created', 'running'] : ['running'];
    for (const name of names.filter((one) => !one.startsWith('broken')))
      await until(`${name} is made`, () => running.includes(this.guests.get(name)?.domain.state ?? ''));
  }

  get port(): number {
    return this.service.port;
  }

  /** As the others see it through something that listens there. */
  behind(port: number): Reach {
    return { port, registers: this.registers };
  }

  guest(name = 'alpha'): MemoryGuest {
    const guest = this.guests.get(name);
    if (!guest) throw new Error(`no guest ${name}`);
    return guest;
  }

  output(name = 'alpha'): string {
    return Buffer.concat(this.#out.get(name) ?? []).toString();
  }
}

export class TestSecondary extends WatchedHost {
  /** Every domain that was made, in order. */
  readonly domains: MemoryDomain[];
  readonly #out: Buffer[];
  readonly #count: number;
  readonly #isEmbedded: boolean;

  constructor({ port, registers }: Reach, changes: SecondaryChanges = {}) {
    const { host = 'south', file, hosts, emulator = false, embedded, buffer } = changes;
    const ofDisks = changes.disks ? { disks: changes.disks } : {};
    const domains: MemoryDomain[] = [];
    const out: Buffer[] = [];
    const sections = (changes.names ?? ['alpha']).map((name) => ({
      name,
      hypervisor: { kind: 'embedded', ...embedded },
      ...(buffer !== undefined && { buffer }),
      failover: { redialMinMs: 10, redialMaxMs: 100, ...changes.failover },
      output: { console: 'none', ...changes.output },
      ...changes.domain,
    }));
    const options = { port, registers, domains: sections, ...(file && { file }), ...(hosts && { hosts }) };
    const service = agentOn(host, options, {
      log: changes.log ?? log,
      openSource: () => Promise.reject(new Error('it is not started here')),
      openTarget: (config) => {
        if (embedded) return openTarget(config);
        const { name } = config;
        const domain = new MemoryDomain({ name, pages: PAGES, empty: true, emulator, ...ofDisks });
        domains.push(domain);
        changes.made?.(domain);
        return Promise.resolve(domain);
      },
      ...(changes.output?.['console'] === undefined && {
        openConsole: () => ({
          write: (bytes) => void out.push(Buffer.from(bytes)),
          close: () => undefined,
        }),
      }),
    });
    super(service);
    this.domains = domains;
    this.#out = out;
    this.#count = sections.length;
    this.#isEmbedded = embedded !== undefined;
  }

  /** Resolves when it stands by, with a domain for each. */
  async start(): Promise<void> {
    await this.service.start();
    const standsBy = () => this.service.statuses().every(({ phase }) => phase === 'standby');
    await until('it stands by', () => standsBy() && (this.#isEmbedded || this.domains.length >= this.#count));
  }

  output(): string {
    return Buffer.concat(this.#out).toString();
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
