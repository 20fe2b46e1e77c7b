// Who uses the server, from outside, each over connections that last as long as the test.

import type { ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { stoppableOf, type Lab } from '../hypervisor/qemu/lab.js';
import { stopProcesses } from '../support/processes.js';
import { until } from '../support/until.js';
import type { ServerFiles } from './image.js';

const CLIENT = fileURLToPath(new URL('./acknowledged.js', import.meta.url));

/** A client that counts (see acknowledged.ts), and what was acknowledged to it. */
export class Acknowledged {
  /** When, milliseconds since 1970; the first is of the number 1. */
  readonly atMs: number[] = [];
  /** What was wrong, once something was; then it counts no more. */
  wrong = '';

  constructor(
    lab: Lab,
    readonly kind: 'sql' | 'redis',
    address: string,
  ) {
    const child = lab.spawn('client', process.execPath, [CLIENT, kind, address], ['ignore', 'pipe', 'pipe']);
    let rest = '';
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) {
        const [number, atMs] = line.split(' ').map(Number);
        this.atMs.push(atMs ?? NaN);
        if (number !== this.atMs.length) this.wrong += `${String(number)} is out of turn`;
      }
    });
    child.stderr?.on('data', (chunk: Buffer) => (this.wrong += chunk.toString()));
  }

  get count(): number {
    return this.atMs.length;
  }

  /** So many more. @throws Error what was wrong */
  async getsOn(by: number, limitMs: number): Promise<void> {
    const goal = this.count + by;
    await until(`${by} more of ${this.kind}`, () => this.count >= goal || this.wrong !== '', limitMs);
    this.check();
  }

  /** @throws Error what was wrong */
  check(): void {
    if (this.wrong !== '') throw new Error(`${this.kind}: ${this.wrong}`);
  }

  /** The longest from one to the next, of those from that one (counted from 0) on. Milliseconds. */
  silenceSince(from: number): number {
    let longest = 0;
    for (let k = Math.max(1, from); k < this.atMs.length; k++) {
      longest = Math.max(longest, (this.atMs[k] ?? NaN) - (this.atMs[k - 1] ?? NaN));
    }
    return longest;
  }
}

/** PostgreSQL's own, which gives up at the first error. */
export class PgBench {
  said = '';
  readonly #process: ChildProcess;

  constructor(lab: Lab, { pgbench }: ServerFiles, address: string) {
    const [command = '', ...words] = pgbench;
    const much = ['--no-vacuum', '--client=2', '--time=100000', '--progress=5'];
    const whom = ['--host', address, '--username=postgres', 'bench'];
    this.#process = lab.spawnStoppable(
      'client',
      command,
      [...words, ...much, ...whom],
      ['ignore', 'pipe', 'pipe'],
    );
    for (const stream of [this.#process.stdout, this.#process.stderr]) {
      stream?.on('data', (chunk: Buffer) => (this.said = (this.said + chunk.toString()).slice(-65_536)));
    }
  }

  /** Transactions in a second, as it said last. */
  get rate(): number {
    return Number(/.*progress: \S+ s, (\S+) tps/s.exec(this.said)?.[1] ?? NaN);
  }

  /** @throws Error what it says, if it has ended or met an error */
  check(): void {
    const { exitCode, signalCode } = this.#process;
    const isWrong = /error|fatal|aborted|[1-9]\d* failed/i.test(this.said);
    if (exitCode === null && signalCode === null && !isWrong) return;
    throw new Error(`pgbench: ${this.said.slice(-2000)}`);
  }

  /** It asks for nothing until goOn(), and has its answers then. */
  pause(): Promise<void> {
    return stopProcesses([stoppableOf(this.#process)]);
  }

  goOn(): void {
    process.kill(stoppableOf(this.#process), 'SIGCONT');
  }

  end(): void {
    process.kill(stoppableOf(this.#process), 'SIGKILL');
  }
}

/** One session with a shell of root's, by ssh. */
export class RemoteShell {
  readonly #process: ChildProcess;
  #said = '';
  #commands = 0;

  constructor(lab: Lab, { key }: ServerFiles, address: string) {
    const trust = ['StrictHostKeyChecking=no', 'UserKnownHostsFile=/dev/null', 'LogLevel=ERROR'];
    // Longer than any silence here.
    const last = ['ServerAliveInterval=0', 'ConnectTimeout=60', 'IdentitiesOnly=yes'];
    const options = [...trust, ...last].flatMap((option) => ['-o', option]);
    const line = ['-F', 'none', '-i', key, ...options, `root@${address}`, 'exec sh 2>&1'];
    this.#process = lab.spawn('client', 'ssh', line, ['pipe', 'pipe', 'pipe']);
    for (const stream of [this.#process.stdout, this.#process.stderr]) {
      stream?.setEncoding('utf8').on('data', (chunk: string) => (this.#said += chunk));
    }
    this.#process.stdin?.on('error', () => undefined); // its end is told to who waits for an answer
  }

  /** What the command says. @throws Error if it fails, the session has ended, or it takes longer */
  async run(command: string, limitMs: number): Promise<string> {
    const mark = `-- ${this.#commands++} ended with `;
    this.#said = '';
    this.#process.stdin?.write(`{ ${command}\n} </dev/null; echo "${mark}$?"\n`);
    const hasEnded = () => this.#process.exitCode !== null || this.#process.signalCode !== null;
    const isAnswered = () => new RegExp(`${mark}\\d+\n`).test(this.#said);
    await until(`the answer to ${command}`, () => isAnswered() || hasEnded(), limitMs).catch(
      (error: unknown) => {
        throw new Error(`no answer to ${command}: ${this.#said}`, { cause: error });
      },
    );
    const [said = '', code = 'no answer'] = this.#said.split(mark);
    if (code.trim() !== '0') throw new Error(`${command} ended with ${code.trim()}: ${said}`);
    return said;
  }
}
