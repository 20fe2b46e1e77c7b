// A domain goes from one host to the other and back while both are well, and says all that it has to say, once.

import { expect } from 'chai';
import { successiveTicksOf } from '../hypervisor/support.js';
import { Cleanup } from '../support/cleanup.js';
import { TwoAgents } from './two-agents.js';

const hypervisor = {
  kind: 'embedded',
  memory: '4MiB',
  guest: { dirtyPages: 10, workingSetPages: 64, tickMs: 5 },
};

describe('service: switchover', () => {
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  it('20 in a row, both directions: nothing is missing and nothing is said twice', async () => {
    const two = await TwoAgents.start(cleanup, { hypervisor });
    const pauses: number[] = [];
    for (let round = 0; round < 20; round++) {
      const { owner, standby } = await two.paired();
      await two.more();
      const report = await two.agent(owner).switchover('web', standby);
      expect(report).to.include({ domain: 'web', to: standby });
      pauses.push(report.pauseMs);
      await two.more();
      expect(two.owner).to.equal(standby);
    }
    console.log(pauses.map((ms) => Math.round(ms)).join(' '));
    await two.paired();
    expect(successiveTicksOf(two.said)[0]).to.equal(1);
    expect(two.failovers.filter(({ phase }) => phase === 'completed')).to.have.length(20);
  });
});
