// The owner's host is killed at any moment of a trial: the standby takes over as ever, and the trial is over.

import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { ticksOf } from '../hypervisor/support.js';
import { Cleanup } from '../support/cleanup.js';
import { freePorts } from '../support/ports.js';
import { until } from '../support/until.js';
import { AgentPair, HOSTS, PATIENCE_MS } from './agent-pair.js';
import { times } from '../support/length.js';

const ROUNDS = times(2, 10);
/** From its making to its running. */
const MOMENTS_MS = 300;

describe('service: the owner dies during a test failover', function () {
  this.timeout(ROUNDS * PATIENCE_MS);
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  it(`${ROUNDS} times: the standby goes on, and says nothing twice`, async () => {
    const [alpha, beta] = await freePorts(2);
    const directory = await cleanup.directory();
    const guest = { dirtyPages: 10, workingSetPages: 64, tickMs: 5 };
    const cluster = {
      witness: { kind: 'file', directory },
      hosts: { alpha: { address: '127.0.0.1', port: alpha }, beta: { address: '127.0.0.1', port: beta } },
      http: false,
      log: { level: 'silent' },
      domains: [
        {
          name: 'web',
          hosts: HOSTS,
          hypervisor: { kind: 'embedded', memory: '4MiB', guest },
          checkpoint: { intervalMs: 20 },
          heartbeat: { intervalMs: 50, timeoutMs: 400 },
        },
      ],
    };
    let said = '';
    const pair = new AgentPair({ cluster, directory, said: (_, text) => (said += text) });
    cleanup.add(() => pair.close());
    for (const host of HOSTS) pair.begin(host);
    for (let round = 0; round < ROUNDS; round++) {
      const owner = await pair.paired();
      const standby = HOSTS.find((host) => host !== owner) ?? owner;
      pair.tryStandby(standby);
      await sleep(Math.random() * MOMENTS_MS); // any moment will do: being made, being copied, running
      await pair.kill(owner);
      said = said.slice(0, said.lastIndexOf('\n') + 1); // what it has not finished saying it never will
      const ticks = ticksOf(said).length;
      await until('it goes on', () => ticksOf(said).length > ticks + 20, PATIENCE_MS);
      await until('the trial is over', () => pair.trials.length === round + 1, PATIENCE_MS);
      pair.begin(owner);
      expect(await pair.paired()).to.equal(standby);
    }
    expect(pair.trials).to.deep.equal(Array(ROUNDS).fill('INTERRUPTED'));
    const ticks = ticksOf(said);
    expect(ticks).to.deep.equal([...new Set(ticks)].sort((a, b) => a - b));
  });
});
