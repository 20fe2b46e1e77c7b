// The agents of a lab, each the command that a user starts, and what they say.

import { once } from 'node:events';
import { mkdirSync, readFileSync } from 'node:fs';
import type { ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { SupervisorMessage } from '../../../src/cli/supervisor.js';
import type { GuestFiles } from '../../../src/hypervisor/qemu/guest/build.js';
import { childrenOf } from '../../support/processes.js';
import { guestMachine } from '../../support/qemu.js';
import { ADDRESSES, childOf, TAP, type Host, type Lab } from './lab.js';
import type { LogPipe } from './lab-log-pipe.js';

const ROMULUS = fileURLToPath(new URL('../../../src/cli/main.js', import.meta.url));

const PORT = 7300;
/** A directory of the lab, which all its hosts see. */
export const REGISTERS = 'registers';
export const GUEST_MAC = '52:54:00:77:00:02';
/** The primary's console before the gate: all that the guest has said, committed or not. */
export const CONSOLE_TAP = 'said';

/** The hypervisor's section: the guest, its card on the host's tap. */
function hypervisor(files: GuestFiles): object {
  const load = { workingSetPages: 1024, dirtyPages: 100, tickMs: 50 };
  return {
    ...guestMachine(files, { ...load, address: `${ADDRESSES.guest}/24` }),
    network: [{ id: 'lan', mac: GUEST_MAC, tap: TAP }],
  };
}

export interface LabCluster {
  readonly intervalMs: number;
  /** Silence that is death. */
  readonly timeoutMs?: number;
  /** Where the primary listens, or is dialled. */
  readonly port?: number;
  /** The directory of the witness, in the lab. */
  readonly registers?: string;
}

/** The file of the lab's cluster. Its hosts are called as they are in the lab. */
export function labCluster(files: GuestFiles, cluster: LabCluster): object {
  const { intervalMs, timeoutMs = 5000, port = PORT, registers = REGISTERS } = cluster;
  return {
    witness: { kind: 'file', directory: registers },
    hosts: {
      primary: { address: ADDRESSES.primary, port },
      secondary: { address: ADDRESSES.secondary, port: PORT },
    },
    plaintext: true,
    http: false,
    control: '{host}.sock',
    domains: [
      {
        name: 'counter',
        hosts: { primary: { output: { tap: CONSOLE_TAP } }, secondary: {} },
        hypervisor: hypervisor(files),
        checkpoint: { intervalMs },
        heartbeat: { intervalMs: 100, timeoutMs },
        failover: { reconnectWindowMs: 0, redialMaxMs: 100 },
      },
    ],
  };
}

/** Makes the directory of the witness. */
export function makeRegisters(lab: Lab): void {
  mkdirSync(lab.outside(REGISTERS));
}

export interface LogLine {
  readonly level: string;
  /** Milliseconds since 1970. */
  readonly atMs: number;
  readonly msg: string;
  /** What the error said that it tells of. */
  readonly error: string | null;
}

interface RawLine {
  readonly level: string;
  readonly time: string;
  readonly msg: string;
  readonly err?: { readonly message: string };
}

export interface AgentOptions {
  /** Where it runs. Default: the host of its side. */
  readonly host?: Host | 'switch';
  /** Its standard error. Default: a socket that is always read. */
  readonly log?: LogPipe;
  /** Its directory for temporary files, in the lab. Default: the machine's. */
  readonly temporary?: string;
}

function programLine(line: readonly string[], temporary?: string): [string, readonly string[]] {
  if (temporary === undefined) return [process.execPath, line];
  return ['env', [`TMPDIR=${temporary}`, process.execPath, ...line]];
}

export class Agent {
  readonly messages: SupervisorMessage[] = [];
  readonly log: LogLine[] = [];
  /** The guest's console, as it was let out. */
  console = '';
  #rest = '';
  readonly #process: ChildProcess;

  constructor(
    lab: Lab,
    readonly side: 'primary' | 'secondary',
    config: object,
    { host = side, log, temporary }: AgentOptions = {},
  ) {
    const file = lab.write(`${side}.yaml`, JSON.stringify(config)); // JSON is YAML
    const line = [ROMULUS, 'agent', '--config', file, '--host', side];
    this.#process = lab.spawn(host, ...programLine(line, temporary), [
      'ignore',
      'pipe',
      log?.takeWriteEnd() ?? 'pipe',
      'ipc',
    ]);
    log?.givenAway((text) => this.#read(text));
    this.#process.on('message', (message) => this.messages.push(message as SupervisorMessage));
    this.#process.stdout?.on('data', (bytes: Buffer) => (this.console += bytes.toString('latin1')));
    this.#process.stderr?.setEncoding('utf8').on('data', (text: string) => this.#read(text));
  }

  /** By the number that we see it by. */
  get pid(): number {
    return childOf(this.#process);
  }

  /** Its QEMU. */
  get qemu(): number {
    const found = childrenOf(this.pid).find((pid) =>
      readFileSync(`/proc/${pid}/comm`, 'latin1').startsWith('qemu-system'),
    );
    if (found === undefined) throw new Error(`the ${this.side} has no QEMU`);
    return found;
  }

  /** How it ended, if it has. */
  get end(): string | null {
    const { exitCode, signalCode } = this.#process;
    if (exitCode === null && signalCode === null) return null;
    return `the ${this.side} ended: ${signalCode ?? `code ${String(exitCode)}`}`;
  }

  said(msg: string): LogLine | undefined {
    return this.log.find((line) => line.msg === msg);
  }

  /** The last that was heard of a kind. */
  last<Kind extends SupervisorMessage['kind']>(
    kind: Kind,
  ): Extract<SupervisorMessage, { kind: Kind }> | undefined {
    return this.messages.findLast(
      (message): message is Extract<SupervisorMessage, { kind: Kind }> => message.kind === kind,
    );
  }

  count(kind: SupervisorMessage['kind']): number {
    return this.messages.filter((message) => message.kind === kind).length;
  }

  async closed(): Promise<void> {
    if (this.#process.exitCode === null && this.#process.signalCode === null)
      await once(this.#process, 'close');
  }

  #read(text: string): void {
    const lines = (this.#rest + text).split('\n');
    this.#rest = lines.pop() ?? '';
    for (const line of lines) {
      if (!line.startsWith('{')) throw new Error(`the ${this.side} says: ${line}`);
      const { level, time, msg, err } = JSON.parse(line) as RawLine;
      this.log.push({ level, atMs: Date.parse(time), msg, error: err?.message ?? null });
    }
  }
}
