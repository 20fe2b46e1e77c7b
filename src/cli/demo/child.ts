// A host of the demo: the very command that a user would start there, as an operating-system process of its own, watched
// over its console (standard output), its log (standard error) and the supervisor messages on its IPC channel. What it
// said and reported is kept.

import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { Subject } from 'rxjs';
import { RomulusError } from '../../errors.js';
import { monotonicMs } from '../../flow/clock.js';
import type { CheckpointReport, CommitReport } from '../../report/reports.js';
import type { SupervisorMessage } from '../supervisor.js';
import type { DemoHost } from './cluster.js';
import type { SeenOutput } from './measure.js';

/** Log lines kept to be shown if the demo fails. */
const LOG_LINES_KEPT = 200;
/** How long an agent may take to stop in order before it is killed. */
const STOP_TIMEOUT_MS = 10_000;

export class DemoChild {
  readonly host: DemoHost;
  readonly startedAtMs = monotonicMs();
  readonly messages$ = new Subject<SupervisorMessage>();
  /** What the machine says here, as the outside sees it. */
  readonly console$ = new Subject<Buffer>();
  readonly seen: SeenOutput[] = [];
  /** All of `console$`, in latin1. */
  said = '';
  readonly checkpoints: CheckpointReport[] = [];
  readonly commits: CommitReport[] = [];
  /** The last lines of its log. */
  readonly log: string[] = [];
  /** Resolves when the process has ended and all that it wrote has been read. */
  readonly closed: Promise<void>;
  readonly #process: ChildProcess;

  constructor(host: DemoHost, entry: string, configFile: string) {
    this.host = host;
    this.#process = spawn(process.execPath, [entry, 'agent', '--config', configFile, '--host', host], {
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    });
    this.closed = once(this.#process, 'close').then(() => {
      this.messages$.complete();
      this.console$.complete();
    });
    // 'error' is the failure to start or to be signalled; 'close' follows where there was a process.
    this.#process.on('error', (error) => this.messages$.error(error));
    this.#process.on('message', (message) => this.#told(message as SupervisorMessage));
    this.#process.stdout?.on('data', (bytes: Buffer) => this.#saw(bytes));
    this.#process.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.log.push(...text.split('\n').filter((line) => line !== ''));
      this.log.splice(0, this.log.length - LOG_LINES_KEPT);
    });
  }

  /** Of a process that was started. */
  get pid(): number {
    return this.#process.pid ?? 0;
  }

  get running(): boolean {
    return this.#process.exitCode === null && this.#process.signalCode === null;
  }

  /** How it ended, in words. */
  get ending(): string {
    const { exitCode, signalCode } = this.#process;
    if (this.running) return 'is running';
    return signalCode ? `was ended by ${signalCode}` : `ended with exit code ${String(exitCode)}`;
  }

  /** SIGKILL: the host dies, with a QEMU that it has. Returns the moment. @throws RomulusError NOT_RUNNING */
  kill(): number {
    const atMs = monotonicMs();
    if (!this.#process.kill('SIGKILL')) {
      throw new RomulusError('NOT_RUNNING', `${this.host} could not be killed: it ${this.ending}`);
    }
    return atMs;
  }

  /** SIGTERM, and SIGKILL if that does not do; resolves when it is gone. */
  async stop(): Promise<void> {
    if (this.running) this.#process.kill('SIGTERM');
    const timer = setTimeout(() => this.#process.kill('SIGKILL'), STOP_TIMEOUT_MS);
    try {
      await this.closed;
    } finally {
      clearTimeout(timer);
    }
  }

  #told(message: SupervisorMessage): void {
    if (message.kind === 'checkpoint') this.checkpoints.push(message.report);
    if (message.kind === 'commit') this.commits.push(message.report);
    this.messages$.next(message);
  }

  #saw(bytes: Buffer): void {
    this.seen.push({ bytes: bytes.length, atMs: monotonicMs() });
    this.said += bytes.toString('latin1');
    this.console$.next(bytes);
  }
}
