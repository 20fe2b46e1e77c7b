import { expect } from 'chai';
import { takeOver } from '../../src/failover/takeover.js';
import { unwitnessed } from '../../src/failover/witness.js';
import { HypervisorError } from '../../src/hypervisor/port.js';
import { MemoryDomain } from '../memory/domain.js';
import { ByteGate } from '../../src/output/byte-gate.js';
import { outletOf } from '../../src/output/outlet.js';
import { until } from '../support/until.js';

describe('failover', () => {
  function standby() {
    const out: Uint8Array[] = [];
    const domain = new MemoryDomain({ pages: 1 });
    const outlet = outletOf({ write: (bytes) => void out.push(bytes), close: () => undefined });
    const gate = new ByteGate({ outlet, limitBytes: 100 });
    domain.output$.subscribe((bytes) => gate.push(bytes));
    return { out, domain, gate };
  }

  it('the domain runs, then its output passes', async () => {
    const { out, domain, gate } = standby();
    gate.push(Uint8Array.of(1));
    await takeOver(domain, gate);
    expect(domain.state).to.equal('running');
    domain.say(Uint8Array.of(2));
    expect(out.map((bytes) => bytes[0])).to.deep.equal([1, 2]);
  });

  it('a domain that does not start says nothing, and can be tried again', async () => {
    const { out, domain, gate } = standby();
    domain.script = (call) => {
      if (call === 'start') throw new HypervisorError('BAD_CONTEXT', 'no');
    };
    gate.push(Uint8Array.of(1));
    const failure = await takeOver(domain, gate).then(
      () => null,
      (error: unknown) => error,
    );
    expect(failure).to.be.instanceOf(HypervisorError);
    gate.push(Uint8Array.of(2));
    expect(out).to.deep.equal([]);
    domain.script = () => undefined;
    await takeOver(domain, gate);
    expect(domain.state).to.equal('running');
    const said = () => Buffer.concat(out);
    await until('both are out', () => said().length === 2);
    expect([...said()]).to.deep.equal([1, 2]);
  });

  it('without a witness every takeover is granted, and that is said once', async () => {
    const warnings: string[] = [];
    const witness = unwitnessed((message) => warnings.push(message));
    expect(await witness.acquire('alpha')).to.deep.equal({ domain: 'alpha' });
    await witness.acquire('beta');
    expect(warnings).to.have.length(1);
  });
});
