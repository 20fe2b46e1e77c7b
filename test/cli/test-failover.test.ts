// romulus test-failover, and the agent that it asks: what is asked for, what is printed, the exit code, and who ends it.

import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { expect } from 'chai';
import { createControl } from '../../src/observe/http/control.js';
import { ServiceError } from '../../src/report/error.js';
import type { TrialReport, TrialRequest } from '../../src/report/reports.js';
import { FakeAgent, status } from '../service/fakes.js';
import { log } from '../service/world.js';
import { Cleanup } from '../support/cleanup.js';
import { childrenOf } from '../support/processes.js';
import { until } from '../support/until.js';
import { romulus, type Result } from './support.js';

const PATIENCE_MS = 30_000;

const lives: TrialReport = {
  ...{ domain: 'web', host: 'beta', epoch: 17, lives: true, why: 'its guest is at work' },
  ...{ seconds: 2, changedPages: 12, outputBytes: 9, console: 'tick 1 ok\r\n\u001b[2Jtick 2 ok\n' },
};

describe('romulus test-failover', function () {
  this.timeout(2 * PATIENCE_MS);
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  async function agentThat(answer: (request: TrialRequest) => Promise<TrialReport>) {
    const directory = await cleanup.directory();
    const file = path.join(directory, 'cluster.yaml');
    const hosts = { beta: { address: '127.0.0.1' }, alpha: { address: '127.0.0.1', port: 9999 } };
    const domains = [{ name: 'web', hosts: ['alpha', 'beta'], hypervisor: { kind: 'embedded' } }];
    const cluster = { witness: { kind: 'none' }, hosts, domains, control: '{host}.sock', token: 'token' };
    await writeFile(file, JSON.stringify(cluster));
    const requests: TrialRequest[] = [];
    const agent = Object.assign(new FakeAgent(status()), {
      testFailover: (_domain: string, request: TrialRequest = {}) => {
        requests.push(request);
        return answer(request);
      },
    });
    const control = createControl({ socket: path.join(directory, 'beta.sock'), agent, log });
    await control.start();
    cleanup.add(() => control.stop());
    const ask = (args: readonly string[]): Promise<Result> =>
      romulus(['test-failover', 'web', '--config', file, '--host', 'beta', ...args]);
    return { requests, ask };
  }

  it('of one that lives: 0, and what was seen, as a terminal may have it', async () => {
    const { requests, ask } = await agentThat(() => Promise.resolve(lives));
    const { exitCode, stdout } = await ask(['--seconds', '2']);
    expect(exitCode).to.equal(0);
    expect(stdout).to.include(
      'web would live on beta, from epoch 17, as 2 s have shown: its guest is at work',
    );
    expect(stdout).to.include('tick 1 ok\n\ufffd[2Jtick 2 ok\n');
    expect(requests[0]).to.include({ seconds: 2 });
    const printed = await ask(['--json']);
    expect(JSON.parse(printed.stdout)).to.deep.equal({ ok: true, ...lives });
    expect(requests[1]).to.not.have.property('seconds');
  });

  it('of one that does not: 1', async () => {
    const why = 'it ended: the guest panicked';
    const { ask } = await agentThat(() => Promise.resolve({ ...lives, lives: false, why, console: '' }));
    const { exitCode, stdout } = await ask([]);
    expect(exitCode).to.equal(1);
    expect(stdout).to.include(`web would not live on beta, from epoch 17, as 2 s have shown: ${why}\n`);
    expect((await ask(['--json'])).exitCode).to.equal(1);
  });

  it('that cannot be made: 1, and why; that is asked for wrongly: 2', async () => {
    const refused = new ServiceError('NOT_STANDBY', 'it stands by on alpha');
    const { ask } = await agentThat(() => Promise.reject(refused));
    const { exitCode, stdout } = await ask([]);
    expect(exitCode).to.equal(1);
    expect(stdout).to.include('refused, NOT_STANDBY: it stands by on alpha');
    for (const seconds of ['0', '3601', 'x'])
      expect((await ask(['--seconds', seconds])).exitCode).to.equal(2);
  });

  it('that is ended by Ctrl-C ends the trial', async () => {
    let ended = false;
    const { requests, ask } = await agentThat(
      ({ signal }) =>
        new Promise((_, reject) => {
          signal?.addEventListener('abort', () => {
            ended = true;
            reject(new ServiceError('INTERRUPTED', 'nobody waits for it'));
          });
        }),
    );
    const others = new Set(childrenOf(process.pid));
    const asked = ask([]);
    await until('it is asked for', () => requests.length === 1, PATIENCE_MS);
    expect(ended).to.equal(false);
    const [pid = NaN] = childrenOf(process.pid).filter((child) => !others.has(child));
    process.kill(pid, 'SIGINT');
    expect((await asked).exitCode).to.not.equal(0);
    await until('the trial is over', () => ended, PATIENCE_MS);
  });
});
