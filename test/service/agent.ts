// An agent as a user runs it: the command, with an embedded machine, in a process of its own, watched over its IPC
// channel like `romulus demo` watches its two; whatever its standard error is.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { SupervisorMessage } from '../../src/cli/supervisor.js';
import { commandOf } from '../cli/agent.js';
import type { Cleanup } from '../support/cleanup.js';
import { childrenOf } from '../support/processes.js';

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
    host: string,
    cluster: object,
    { stderr = 'ignore', terminal = false }: AgentOptions = {},
  ): Promise<Agent> {
    const log = { level: 'trace', format: terminal ? 'auto' : 'json' };
    const command = [process.execPath, ...(await commandOf(cleanup, host, { ...cluster, log }))];
    const agent = terminal
      ? new Agent(['script', '-qefc', `exec ${command.join(' ')}`, '/dev/null'], stderr)
      : new Agent(command, stderr);
    cleanup.add(() => agent.kill());
    return agent;
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
  readonly terminal?: boolean;
}
