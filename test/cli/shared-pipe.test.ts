// Standard output and standard error are often pipes that other programs write to as well (a shell script, a supervisor):
// an agent must not make them non-blocking, for the others would see EAGAIN and lose what they say.

import { spawn } from 'node:child_process';
import { constants, readFileSync } from 'node:fs';
import { expect } from 'chai';
import type { SupervisorMessage } from '../../src/cli/supervisor.js';
import { Cleanup } from '../support/cleanup.js';
import { Fifo } from '../support/strangers.js';
import { until } from '../support/until.js';
import { clusterOf, commandOf, ENTRY } from './agent.js';

/** Of the open file description, which whoever was given the descriptor shares with us. */
function isNonBlocking(fd: number): boolean {
  const [, flags = ''] = /^flags:\s*([0-7]+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8')) ?? [];
  expect(flags).to.match(/^[0-7]+$/);
  return (Number.parseInt(flags, 8) & constants.O_NONBLOCK) !== 0;
}

describe('a pipe that an agent shares with others', function () {
  this.timeout(60_000);
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  async function agentOf(config: unknown) {
    const [out, err] = [await Fifo.open(cleanup), await Fifo.open(cleanup)];
    const fds = [out.blocking(cleanup), err.blocking(cleanup)] as const;
    const child = spawn(process.execPath, await commandOf(cleanup, 'alpha', config), {
      stdio: ['ignore', ...fds, 'ipc'],
    });
    cleanup.add(() => child.kill('SIGKILL'));
    const messages: SupervisorMessage[] = [];
    child.on('message', (message) => messages.push(message as SupervisorMessage));
    const ended = () => child.exitCode !== null || child.signalCode !== null;
    return {
      child,
      messages,
      ended,
      text: () => out.drain() + err.drain(),
      flags: () => fds.map(isNonBlocking),
    };
  }

  for (const format of ['json', 'pretty'] as const) {
    it(`stays as it is while the agent runs and says something (${format}), and at its end`, async () => {
      const file = { log: { level: 'trace', format } };
      const agent = await agentOf(await clusterOf(cleanup, { file, output: { console: 'stdout' } }));
      let text = '';
      await until('it listens', () => agent.messages.some(({ kind }) => kind === 'listening'), 30_000);
      await until('log and console', () => /tick \d+/.test((text += agent.text())) && /at work/.test(text));
      expect(agent.flags()).to.deep.equal([false, false]);
      agent.child.kill('SIGINT');
      await until('the end', agent.ended);
      expect(agent.flags()).to.deep.equal([false, false]);
    });
  }

  it('stays as it is when a configuration is found wrong; the complaint is there', async () => {
    const agent = await agentOf({ domains: [] });
    let seen = false;
    await until(
      'the end',
      () => {
        seen ||= agent.flags().includes(true);
        return agent.ended();
      },
      30_000,
    );
    expect(seen).to.equal(false);
    expect(agent.child.exitCode).to.equal(2);
    expect(agent.text()).to.match(/^romulus: INVALID: [^]*domains/);
  });

  it('nobody reads standard error any more: no error of the agent’s', async () => {
    const child = spawn(process.execPath, [ENTRY, 'agent', '--config', '/nowhere'], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    cleanup.add(() => child.kill('SIGKILL'));
    child.stderr.destroy();
    await until('the end', () => child.exitCode !== null || child.signalCode !== null, 30_000);
    expect([child.exitCode, child.signalCode]).to.deep.equal([2, null]);
  });
});
