// For mocha's `require`: a property says how long its sequences may be, and means it. fast-check's own default is ten or so,
// whatever is said, and little happens in ten steps.

import fc from 'fast-check';

fc.configureGlobal({ defaultSizeToMaxWhenMaxSpecified: true });
