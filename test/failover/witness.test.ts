import { expect } from 'chai';
import { unwitnessed } from '../../src/failover/witness.js';

describe('failover', () => {
  it('without a witness every takeover is granted, and that is said once', async () => {
    const warnings: string[] = [];
    const witness = unwitnessed((message) => warnings.push(message));
    expect(await witness.acquire('alpha')).to.deep.equal({ domain: 'alpha' });
    await witness.acquire('beta');
    expect(warnings).to.have.length(1);
  });
});
