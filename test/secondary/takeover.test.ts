import { expect } from 'chai';
import { HypervisorError } from '../../src/hypervisor/port.js';
import { MemoryDomain } from '../memory/domain.js';
import { outletOf } from '../../src/output/outlet.js';
import { Standby } from '../../src/secondary/standbys.js';
import { log } from '../service/world.js';
import { until } from '../support/until.js';

async function takeOver(standby: Standby): Promise<void> {
  await standby.start();
  await standby.speak();
}

describe('secondary/standbys: a takeover', () => {
  function made() {
    const out: Uint8Array[] = [];
    const domain = new MemoryDomain({ pages: 1 });
    const console = outletOf({ write: (bytes) => void out.push(bytes), close: () => undefined });
    const heard = { ended: () => undefined, stopped: () => undefined };
    const open = () => Promise.resolve(domain);
    const standby = new Standby(domain, { open, console, tap: null, limitBytes: 100, log, ...heard }, heard);
    return { out, domain, standby, gate: standby.gate };
  }

  it('the domain runs, then its output passes', async () => {
    const { out, domain, standby, gate } = made();
    gate.push(Uint8Array.of(1));
    await takeOver(standby);
    expect(domain.state).to.equal('running');
    domain.say(Uint8Array.of(2));
    expect(out.map((bytes) => bytes[0])).to.deep.equal([1, 2]);
  });

  it('a domain that does not start says nothing, and can be tried again', async () => {
    const { out, domain, standby, gate } = made();
    domain.script = (call) => {
      if (call === 'start') throw new HypervisorError('BAD_CONTEXT', 'no');
    };
    gate.push(Uint8Array.of(1));
    const failure = await takeOver(standby).then(
      () => null,
      (error: unknown) => error,
    );
    expect(failure).to.be.instanceOf(HypervisorError);
    gate.push(Uint8Array.of(2));
    expect(out).to.deep.equal([]);
    domain.script = () => undefined;
    await takeOver(standby);
    expect(domain.state).to.equal('running');
    const said = () => Buffer.concat(out);
    await until('both are out', () => said().length === 2);
    expect([...said()]).to.deep.equal([1, 2]);
  });
});
