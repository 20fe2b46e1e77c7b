// One side as a user runs it: the command, with an embedded machine, in a process of its own, watched over its IPC
// channel like `romulus demo` watches its two.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { stringify } from 'yaml';
import type { SupervisorMessage } from '../../src/cli/supervisor.js';
import type { Cleanup } from '../support/cleanup.js';
import { childrenOf } from '../support/processes.js';

const ENTRY = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));
const HYPERVISOR = {
  kind: 'embedded',
  memory: '4MiB',
  guest: { dirtyPages: 10, workingSetPages: 64, tickMs: 5 },
};

export class Agent {
  readonly process: ChildProcess;
  readonly messages: SupervisorMessage[] = [];

  private constructor(command: readonly string[], stderr: number | 'inherit' | 'ignore' | 'pipe') {
    const [file = '', ...args] = command;
    this.process = spawn(file, args, { stdio: ['ignore', 'ignore', stderr, 'ipc'] });
    this.process.on('message', (message) => this.messages.push(message as SupervisorMessage));
  }

  /** `terminal`: its standard error is one, which `script` reads (the process here). */
  static async start(
    cleanup: Cleanup,
    side: 'primary' | 'secondary',
    { stderr = 'ignore', port = 0, terminal = false }: AgentOptions,
  ): Promise<Agent> {
    const file = `${await cleanup.directory()}/${side}.yaml`;
    const domain = { name: 'web', hypervisor: HYPERVISOR, output: { console: 'none' } };
    const config = {
      http: false,
      log: { level: 'trace', format: terminal ? 'auto' : 'json' },
      ...(side === 'primary' && { listen: { port: 0 } }),
      domains: [
        side === 'primary'
          ? { ...domain, checkpoint: { intervalMs: 20 } }
          : { ...domain, primary: `ws://127.0.0.1:${port}` },
      ],
    };
    writeFileSync(file, stringify(config));
    const command = [process.execPath, ENTRY, side, '--config', file];
    const agent = terminal
      ? new Agent(['script', '-qefc', `exec ${command.join(' ')}`, '/dev/null'], stderr)
      : new Agent(command, stderr);
    cleanup.add(() => agent.kill());
    return agent;
  }

  get port(): number {
    for (const message of this.messages) if (message.kind === 'listening') return message.port ?? 0;
    return -1;
  }

  count(kind: SupervisorMessage['kind']): number {
    return this.messages.filter((message) => message.kind === kind).length;
  }

  get phases(): string[] {
    return this.messages.flatMap((message) => (message.kind === 'failover' ? [message.event.phase] : []));
  }

  get ended(): boolean {
    return this.process.exitCode !== null || this.process.signalCode !== null;
  }

  /** In a terminal: the agent itself, too, which outlives `script`, and holds the channel. */
  async kill(): Promise<void> {
    const { pid } = this.process;
    if (this.ended || pid === undefined) return;
    const closed = once(this.process, 'close');
    for (const child of childrenOf(pid)) process.kill(child, 'SIGKILL');
    this.process.kill('SIGKILL');
    await closed;
  }
}

export interface AgentOptions {
  readonly stderr?: number | 'inherit' | 'ignore' | 'pipe';
  /** The primary's. */
  readonly port?: number;
  readonly terminal?: boolean;
}
