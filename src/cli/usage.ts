// What was asked on the command line cannot be done.

import { RomulusError } from '../errors.js';

export class UsageError extends RomulusError<'USAGE'> {
  constructor(message: string) {
    super('USAGE', message);
  }
}
