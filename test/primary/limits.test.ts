// A hypervisor that does not answer, and what becomes of a domain that others stop and let run.

import { expect } from 'chai';
import { MemoryDomain } from '../memory/domain.js';
import { withLimits, within } from '../../src/primary/limits.js';
import { DomainStop } from '../../src/hypervisor/standstill.js';
import { expectCode } from '../hypervisor/support.js';

const never = (): Promise<never> => new Promise(() => undefined);

describe('primary/limits', () => {
  it('what is answered in time is passed on, what is not has hung', async () => {
    expect(await within(1000, 'stop', Promise.resolve(7))).to.equal(7);
    const error = await expectCode(within(10, 'stop', never()), 'HUNG', 'stop');
    expect(error.facts).to.deep.equal({ call: 'stop', limitMs: 10 });
    await expectCode(within(10_000, 'stop', Promise.reject(error)), 'HUNG');
  });

  it('a process that was stopped itself gives the hypervisor its time once more', async () => {
    let answer: (value: number) => void = () => undefined;
    const waiting = within(50, 'stop', new Promise<number>((resolve) => (answer = resolve)));
    const until = performance.now() + 700;
    while (performance.now() < until); // as if we stood still
    setTimeout(() => answer(7), 20);
    expect(await waiting).to.equal(7);
  });

  it('limits what a saver asks for, and nothing else', async () => {
    const domain = new MemoryDomain({ pages: 4 });
    const limited = withLimits(domain, 20, 4 * 4096);
    await limited.start();
    expect((await limited.info()).state).to.equal('running');
    expect(limited.output$).to.equal(domain.output$);
    domain.suspend = never;
    await expectCode(withLimits(domain, 20, 4 * 4096).suspend(), 'HUNG', 'suspend');
  });
});

describe('hypervisor/standstill', () => {
  it('suspends again what somebody else let run, but not under a checkpoint', async () => {
    const calls: string[] = [];
    let state: 'running' | 'suspended' = 'running';
    const domain = {
      suspend: () => {
        calls.push('suspend');
        state = 'suspended';
        return Promise.resolve();
      },
      resume: () => {
        calls.push('resume');
        state = 'running';
        return Promise.resolve();
      },
      info: () => new MemoryDomain({ pages: 1 }).info().then((info) => ({ ...info, state })),
    };
    const stop = new DomainStop(domain);
    await stop.add('pressure');
    await stop.add('pressure');
    expect(calls.splice(0)).to.deep.equal(['suspend']);
    state = 'running'; // somebody else
    await stop.add('pressure');
    expect(calls.splice(0)).to.deep.equal(['suspend']);
    await stop.add('checkpoint');
    expect(calls.splice(0)).to.deep.equal([]);
    state = 'running';
    await stop.add('pressure');
    expect(calls.splice(0)).to.deep.equal([]);
    await stop.add('checkpoint');
    expect(calls.splice(0)).to.deep.equal(['suspend']);
    await stop.remove('checkpoint');
    expect(calls.splice(0)).to.deep.equal([]);
    await stop.remove('pressure');
    expect(calls).to.deep.equal(['resume']);
  });
});
